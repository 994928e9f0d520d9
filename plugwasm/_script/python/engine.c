/* The Python engine of plugwasm: MicroPython as a module that speaks the plugin contract.
 *
 * The module goes through three states, and is written back to a file between them (snapshots):
 *
 *   boot   makes the interpreter, and runs the modules of the kit in it, which come as the input
 *   load   runs a script, and remembers its functions
 *   call   calls one of these functions
 *
 * Everything that has a state is in the linear memory: there is no mutable global but the stack
 * pointer, which has its first value between two calls.
 */
#include <string.h>

#include "plugwasm.h"
#include "py/builtin.h"
#include "py/compile.h"
#include "py/cstack.h"
#include "py/gc.h"
#include "py/lexer.h"
#include "py/mperrno.h"
#include "py/objexcept.h"
#include "py/objmodule.h"
#include "py/objstr.h"
#include "py/runtime.h"

#include "port.h"

/* What a script may use of the stack in the linear memory. */
#ifndef STACK_LIMIT
#define STACK_LIMIT (448 * 1024)
#endif
#define MAX_PARAMS 16

mp_obj_t port_read_signatures(mp_obj_t source);

MP_REGISTER_ROOT_POINTER(mp_obj_t plugwasm_load);
MP_REGISTER_ROOT_POINTER(mp_obj_t plugwasm_call);
MP_REGISTER_ROOT_POINTER(mp_obj_t plugwasm_describe);
MP_REGISTER_ROOT_POINTER(mp_obj_t plugwasm_files);
MP_REGISTER_ROOT_POINTER(mp_obj_t plugwasm_host);

/* ---- blocks of the host ----------------------------------------------------------------------- */

void port_need_host(const char *what) {
    if (port_is_loading)
        mp_raise_msg_varg(&mp_type_RuntimeError,
            MP_ERROR_TEXT("%s while the script is loaded: only its functions can do that"), what);
}

static mp_obj_t bytes_of(pdk_handle block, uint64_t size) {
    if (size > MP_SSIZE_MAX) mp_raise_type(&mp_type_MemoryError);
    vstr_t text;
    vstr_init_len(&text, (size_t)size);
    pdk_load(block, text.buf, (size_t)size);
    return mp_obj_new_bytes_from_vstr(&text);
}

/* Takes the content of a block; None for no block. */
static mp_obj_t take(pdk_handle block) {
    if (!block) return mp_const_none;
    mp_obj_t content = bytes_of(block, extism_length(block));
    extism_free(block);
    return content;
}

/* A block with a copy of text or bytes. It is 0 if there are none. */
static pdk_handle block_of(mp_obj_t value) {
    mp_buffer_info_t view;
    mp_get_buffer_raise(value, &view, MP_BUFFER_READ);
    pdk_handle block = pdk_block(view.buf, view.len);
    if (view.len && !block) mp_raise_msg(&mp_type_MemoryError, MP_ERROR_TEXT("the host has no memory left"));
    return block;
}

static void read_input_into(vstr_t *text) {
    uint64_t size = pdk_input_size();
    if (size >= MP_SSIZE_MAX) mp_raise_type(&mp_type_MemoryError);
    vstr_init(text, (size_t)size + 1);
    text->len = pdk_input(0, text->buf, (size_t)size);
}

static mp_obj_t read_input(void) {
    vstr_t text;
    read_input_into(&text);
    return mp_obj_new_bytes_from_vstr(&text);
}

/* ---- the functions of `_host` ----------------------------------------------------------------- */

static mp_obj_t host_input(void) {
    port_need_host("the input is read");
    return read_input();
}
static MP_DEFINE_CONST_FUN_OBJ_0(host_input_obj, host_input);

static mp_obj_t host_input_text(mp_obj_t what) {
    port_need_host("the input is read");
    vstr_t text;
    read_input_into(&text);
    port_need_utf8((const byte *)text.buf, text.len, mp_obj_str_get_str(what));
    return port_text(&text);
}
static MP_DEFINE_CONST_FUN_OBJ_1(host_input_text_obj, host_input_text);

static mp_obj_t input_json(void) {
    vstr_t text;
    read_input_into(&text);
    return port_read_json((const byte *)text.buf, text.len, "the input");
}

static mp_obj_t host_input_json(void) {
    port_need_host("the input is read");
    return input_json();
}
static MP_DEFINE_CONST_FUN_OBJ_0(host_input_json_obj, host_input_json);

static mp_obj_t parse_json(mp_obj_t text, mp_obj_t what) {
    mp_buffer_info_t view;
    mp_get_buffer_raise(text, &view, MP_BUFFER_READ);
    return port_read_json(view.buf, view.len, mp_obj_str_get_str(what));
}
static MP_DEFINE_CONST_FUN_OBJ_2(parse_json_obj, parse_json);

static mp_obj_t to_json(mp_obj_t value, mp_obj_t plain) {
    vstr_t text;
    vstr_init(&text, 64);
    port_write_json(&text, value, plain);
    return port_text(&text);
}
static MP_DEFINE_CONST_FUN_OBJ_2(to_json_obj, to_json);

static mp_obj_t host_output(mp_obj_t value) {
    port_need_host("the output is set");
    mp_buffer_info_t view;
    mp_get_buffer_raise(value, &view, MP_BUFFER_READ);
    extism_output_set(block_of(value), view.len);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(host_output_obj, host_output);

/* Sets what a function returned as the output: text and bytes as they are, what JSON has as JSON; for
 * anything else `encode` returns one of these. */
static mp_obj_t host_answer(mp_obj_t value, mp_obj_t encode, mp_obj_t plain) {
    if (mp_obj_is_exact_type(value, &mp_type_dict) || mp_obj_is_exact_type(value, &mp_type_list) ||
        mp_obj_is_exact_type(value, &mp_type_tuple) || mp_obj_is_int(value) || mp_obj_is_float(value) ||
        mp_obj_is_bool(value)) {
        vstr_t text;
        vstr_init(&text, 64);
        port_write_json(&text, value, plain);
        pdk_handle block = pdk_block(text.buf, text.len);
        if (!block) mp_raise_msg(&mp_type_MemoryError, MP_ERROR_TEXT("the host has no memory left"));
        extism_output_set(block, text.len);
        return mp_const_none;
    }
    return host_output(mp_obj_is_str_or_bytes(value) ? value : mp_call_function_1(encode, value));
}
static MP_DEFINE_CONST_FUN_OBJ_3(host_answer_obj, host_answer);

static mp_obj_t host_error(mp_obj_t text) {
    pdk_handle block = block_of(text);
    if (block) extism_error_set(block);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(host_error_obj, host_error);

static mp_obj_t host_config(mp_obj_t key) {
    port_need_host("the config is read");
    return take(extism_config_get(block_of(key)));
}
static MP_DEFINE_CONST_FUN_OBJ_1(host_config_obj, host_config);

static mp_obj_t host_var_get(mp_obj_t name) {
    port_need_host("a var is read");
    return take(extism_var_get(block_of(name)));
}
static MP_DEFINE_CONST_FUN_OBJ_1(host_var_get_obj, host_var_get);

static mp_obj_t host_var_set(mp_obj_t name, mp_obj_t value) {
    port_need_host("a var is set");
    pdk_handle key = block_of(name);
    extism_var_set(key, value == mp_const_none ? 0 : block_of(value));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(host_var_set_obj, host_var_set);

static mp_obj_t host_http(mp_obj_t request, mp_obj_t body) {
    port_need_host("a request is sent");
    pdk_handle document = block_of(request);
    pdk_handle answer = extism_http_request(document, body == mp_const_none ? 0 : block_of(body));
    mp_obj_t content = answer ? take(answer) : mp_const_empty_bytes;
    mp_obj_t items[] = {
        MP_OBJ_NEW_SMALL_INT(extism_http_status_code()), content, take(extism_http_headers()),
    };
    return mp_obj_new_tuple(3, items);
}
static MP_DEFINE_CONST_FUN_OBJ_2(host_http_obj, host_http);

static mp_obj_t host_log(mp_obj_t level_given, mp_obj_t text) {
    port_need_host("a message is logged");
    port_flush_output();
    mp_int_t level = mp_obj_get_int(level_given);
    if (level < PDK_TRACE || level > PDK_ERROR) mp_raise_ValueError(MP_ERROR_TEXT("no such level of the log"));
    if (!pdk_log_enabled((pdk_level)level)) return mp_const_none;
    pdk_handle block = block_of(text);
    if (!block) return mp_const_none;
    switch (level) {
    case PDK_TRACE: extism_log_trace(block); break;
    case PDK_DEBUG: extism_log_debug(block); break;
    case PDK_INFO: extism_log_info(block); break;
    case PDK_WARN: extism_log_warn(block); break;
    default: extism_log_error(block);
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(host_log_obj, host_log);

static uint64_t to_u64(mp_obj_t value) {
    value = mp_unary_op(MP_UNARY_OP_INT_MAYBE, value);
    if (value == MP_OBJ_NULL) mp_raise_TypeError(MP_ERROR_TEXT("expected an integer"));
    if (mp_obj_is_small_int(value)) return (uint64_t)(int64_t)MP_OBJ_SMALL_INT_VALUE(value);
    uint8_t bytes[8];
    mp_obj_int_to_bytes_impl(value, false, sizeof bytes, bytes);
    uint64_t number;
    memcpy(&number, bytes, sizeof number);
    return number;
}

static mp_obj_t host_block_new(mp_obj_t content) {
    port_need_host("memory of the host is used");
    return mp_obj_new_int_from_ull(block_of(content));
}
static MP_DEFINE_CONST_FUN_OBJ_1(host_block_new_obj, host_block_new);

static mp_obj_t host_block_size(mp_obj_t block) {
    port_need_host("memory of the host is used");
    return mp_obj_new_int_from_ull(pdk_size(to_u64(block)));
}
static MP_DEFINE_CONST_FUN_OBJ_1(host_block_size_obj, host_block_size);

static mp_obj_t host_block_read(mp_obj_t block_given) {
    port_need_host("memory of the host is used");
    pdk_handle block = to_u64(block_given);
    return bytes_of(block, pdk_size(block));
}
static MP_DEFINE_CONST_FUN_OBJ_1(host_block_read_obj, host_block_read);

static mp_obj_t host_block_free(mp_obj_t block_given) {
    port_need_host("memory of the host is used");
    pdk_handle block = to_u64(block_given);
    if (block) extism_free(block);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(host_block_free_obj, host_block_free);

/* The functions of the application are elements of the function table, one after the other. Each has
 * a type, whose characters are i (i32), l (i64), f (f32), d (f64): those of the parameters, a colon,
 * and that of the result if there is one. */
static size_t first_element;

static mp_obj_t add_host_function(mp_obj_t first, mp_obj_t type) {
    if (!port_is_loading) mp_raise_msg(&mp_type_RuntimeError, MP_ERROR_TEXT("the script is loaded already"));
    const char *letters = mp_obj_str_get_str(type), *colon = strchr(letters, ':');
    if (!colon || colon - letters > MAX_PARAMS) mp_raise_ValueError(MP_ERROR_TEXT("not a type of a host function"));
    if (MP_STATE_VM(plugwasm_host) == MP_OBJ_NULL) MP_STATE_VM(plugwasm_host) = mp_obj_new_list(0, NULL);
    first_element = (size_t)mp_obj_get_int(first);
    mp_obj_list_append(MP_STATE_VM(plugwasm_host), type);
    size_t count;
    mp_obj_t *types;
    mp_obj_list_get(MP_STATE_VM(plugwasm_host), &count, &types);
    return MP_OBJ_NEW_SMALL_INT(count - 1);
}
static MP_DEFINE_CONST_FUN_OBJ_2(add_host_function_obj, add_host_function);

static mp_obj_t host_call(mp_obj_t index_given, mp_obj_t arguments) {
    port_need_host("a function of the host is called");
    size_t known = 0, count, index = (size_t)mp_obj_get_int(index_given);
    mp_obj_t *types = NULL, *items;
    if (MP_STATE_VM(plugwasm_host) != MP_OBJ_NULL) mp_obj_list_get(MP_STATE_VM(plugwasm_host), &known, &types);
    if (index >= known) mp_raise_ValueError(MP_ERROR_TEXT("no such host function"));
    const char *type = mp_obj_str_get_str(types[index]), *colon = strchr(type, ':');
    mp_obj_get_array(arguments, &count, &items);
    if (count != (size_t)(colon - type)) mp_raise_TypeError(MP_ERROR_TEXT("a wrong number of arguments"));
    uint64_t slots[MAX_PARAMS] = {0};
    for (size_t i = 0; i < count; i++) {
        float single;
        double number;
        switch (type[i]) {
        case 'f':
            single = (float)mp_obj_get_float(items[i]);
            memcpy(&slots[i], &single, sizeof single);
            break;
        case 'd':
            number = mp_obj_get_float(items[i]);
            memcpy(&slots[i], &number, sizeof number);
            break;
        default: slots[i] = to_u64(items[i]);
        }
    }
    ((void (*)(uint64_t *))(uintptr_t)(first_element + index))(slots);
    float single;
    double number;
    switch (colon[1]) {
    case 'i': return mp_obj_new_int((int32_t)slots[0]);
    case 'l': return mp_obj_new_int_from_ll((int64_t)slots[0]);
    case 'f': memcpy(&single, slots, sizeof single); return mp_obj_new_float((double)single);
    case 'd': memcpy(&number, slots, sizeof number); return mp_obj_new_float(number);
    default: return mp_const_none;
    }
}
static MP_DEFINE_CONST_FUN_OBJ_2(host_call_obj, host_call);

/* Runs a source in a new module. What the parser refuses is a SyntaxError with line and column. */
static mp_obj_t run_source(mp_obj_t name, mp_obj_t file, mp_obj_t source) {
    size_t size;
    const char *text = mp_obj_str_get_data(source, &size);
    mp_obj_t module = mp_obj_new_module(mp_obj_str_get_qstr(name));
    mp_obj_dict_t *globals = mp_obj_module_get_globals(module);
    mp_obj_dict_store(MP_OBJ_FROM_PTR(globals), MP_OBJ_NEW_QSTR(MP_QSTR___file__), file);
    mp_lexer_t *volatile lexer = NULL;
    nlr_buf_t handler;
    nlr_jump_callback_node_globals_locals_t before;
    before.globals = mp_globals_get();
    before.locals = mp_locals_get();
    if (nlr_push(&handler) == 0) {
        mp_globals_set(globals);
        mp_locals_set(globals);
        nlr_push_jump_callback(&before.callback, mp_globals_locals_set_from_nlr_jump_callback);
        qstr file_name = mp_obj_str_get_qstr(file);
        lexer = mp_lexer_new_from_str_len(file_name, text, size, 0);
        mp_parse_tree_t tree = mp_parse(lexer, MP_PARSE_FILE_INPUT);
        lexer = NULL;
        mp_call_function_0(mp_compile(&tree, file_name, false));
        nlr_pop_jump_callback(true);
        nlr_pop();
        return module;
    }
    /* The parser has freed the lexer just now, and nothing has been allocated since. */
    if (lexer && mp_obj_is_exception_type(MP_OBJ_FROM_PTR(((mp_obj_base_t *)handler.ret_val)->type))) {
        size_t column = lexer->tok_column;
        mp_obj_dict_store(MP_OBJ_FROM_PTR(globals), MP_OBJ_NEW_QSTR(MP_QSTR___column__), mp_obj_new_int_from_uint(column));
    }
    nlr_jump(handler.ret_val);
}
static MP_DEFINE_CONST_FUN_OBJ_3(run_source_obj, run_source);

static MP_DEFINE_CONST_FUN_OBJ_1(read_signatures_obj, port_read_signatures);

/* Where an exception was raised: (file, line, function or None), the innermost last. */
static mp_obj_t traceback_of(mp_obj_t exception) {
    mp_obj_t found = mp_obj_new_list(0, NULL);
    if (!mp_obj_is_exception_instance(exception)) return found;
    size_t count, *values;
    mp_obj_exception_get_traceback(exception, &count, &values);
    for (size_t i = count; i >= 3; i -= 3) {
        size_t *entry = values + i - 3;
        mp_obj_t items[] = {
            MP_OBJ_NEW_QSTR(entry[0]), MP_OBJ_NEW_SMALL_INT(entry[1]),
            entry[2] == MP_QSTRnull ? mp_const_none : MP_OBJ_NEW_QSTR(entry[2]),
        };
        mp_obj_list_append(found, mp_obj_new_tuple(3, items));
    }
    return found;
}
static MP_DEFINE_CONST_FUN_OBJ_1(traceback_obj, traceback_of);

static mp_obj_t set_entry_points(mp_obj_t load, mp_obj_t call, mp_obj_t describe) {
    MP_STATE_VM(plugwasm_load) = load;
    MP_STATE_VM(plugwasm_call) = call;
    MP_STATE_VM(plugwasm_describe) = describe;
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_3(set_entry_points_obj, set_entry_points);

/* Sets how much of the stack a script may use, in bytes. */
static mp_obj_t set_stack(mp_obj_t size) {
    mp_int_t limit = mp_obj_get_int(size);
    if (limit > 0 && limit < STACK_LIMIT) MP_STATE_THREAD(stack_limit) = (size_t)limit;
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(set_stack_obj, set_stack);

static const mp_rom_map_elem_t host_globals_table[] = {
    {MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR__host)},
    {MP_ROM_QSTR(MP_QSTR_input), MP_ROM_PTR(&host_input_obj)},
    {MP_ROM_QSTR(MP_QSTR_input_text), MP_ROM_PTR(&host_input_text_obj)},
    {MP_ROM_QSTR(MP_QSTR_input_json), MP_ROM_PTR(&host_input_json_obj)},
    {MP_ROM_QSTR(MP_QSTR_parse_json), MP_ROM_PTR(&parse_json_obj)},
    {MP_ROM_QSTR(MP_QSTR_to_json), MP_ROM_PTR(&to_json_obj)},
    {MP_ROM_QSTR(MP_QSTR_output), MP_ROM_PTR(&host_output_obj)},
    {MP_ROM_QSTR(MP_QSTR_answer), MP_ROM_PTR(&host_answer_obj)},
    {MP_ROM_QSTR(MP_QSTR_error), MP_ROM_PTR(&host_error_obj)},
    {MP_ROM_QSTR(MP_QSTR_config), MP_ROM_PTR(&host_config_obj)},
    {MP_ROM_QSTR(MP_QSTR_var_get), MP_ROM_PTR(&host_var_get_obj)},
    {MP_ROM_QSTR(MP_QSTR_var_set), MP_ROM_PTR(&host_var_set_obj)},
    {MP_ROM_QSTR(MP_QSTR_http), MP_ROM_PTR(&host_http_obj)},
    {MP_ROM_QSTR(MP_QSTR_log), MP_ROM_PTR(&host_log_obj)},
    {MP_ROM_QSTR(MP_QSTR_block_new), MP_ROM_PTR(&host_block_new_obj)},
    {MP_ROM_QSTR(MP_QSTR_block_size), MP_ROM_PTR(&host_block_size_obj)},
    {MP_ROM_QSTR(MP_QSTR_block_read), MP_ROM_PTR(&host_block_read_obj)},
    {MP_ROM_QSTR(MP_QSTR_block_free), MP_ROM_PTR(&host_block_free_obj)},
    {MP_ROM_QSTR(MP_QSTR_add_host_function), MP_ROM_PTR(&add_host_function_obj)},
    {MP_ROM_QSTR(MP_QSTR_call), MP_ROM_PTR(&host_call_obj)},
    {MP_ROM_QSTR(MP_QSTR_run), MP_ROM_PTR(&run_source_obj)},
    {MP_ROM_QSTR(MP_QSTR_signatures), MP_ROM_PTR(&read_signatures_obj)},
    {MP_ROM_QSTR(MP_QSTR_traceback), MP_ROM_PTR(&traceback_obj)},
    {MP_ROM_QSTR(MP_QSTR_set_stack), MP_ROM_PTR(&set_stack_obj)},
    {MP_ROM_QSTR(MP_QSTR_set_entry_points), MP_ROM_PTR(&set_entry_points_obj)},
};
static MP_DEFINE_CONST_DICT(host_globals, host_globals_table);
const mp_obj_module_t host_module = {.base = {&mp_type_module}, .globals = (mp_obj_dict_t *)&host_globals};
MP_REGISTER_MODULE(MP_QSTR__host, host_module);

/* ---- what can be imported --------------------------------------------------------------------- */

static mp_map_elem_t *find_file(mp_obj_t path) {
    mp_obj_t files = MP_STATE_VM(plugwasm_files);
    return files == MP_OBJ_NULL ? NULL : mp_map_lookup(mp_obj_dict_get_map(files), path, MP_MAP_LOOKUP);
}

mp_import_stat_t mp_import_stat(const char *path) {
    return find_file(mp_obj_new_str_from_cstr(path)) ? MP_IMPORT_STAT_FILE : MP_IMPORT_STAT_NO_EXIST;
}

mp_lexer_t *mp_lexer_new_from_file(qstr name) {
    mp_map_elem_t *found = find_file(MP_OBJ_NEW_QSTR(name));
    if (!found) mp_raise_OSError(MP_ENOENT);
    size_t size;
    const char *text = mp_obj_str_get_data(found->value, &size);
    return mp_lexer_new_from_str_len(name, text, size, 0);
}

#include "slots.h"

/* ---- exports ---------------------------------------------------------------------------------- */

/* What no code of a script can get in the way of. */
static int32_t fail_plainly(mp_obj_t exception) {
    const char *name = qstr_str(mp_obj_get_type(exception)->name);
    char text[128], *end = pdk_put(text, "the script failed with ");
    for (; *name && end < text + sizeof text; name++) *end++ = *name;
    extism_error_set(pdk_block(text, (size_t)(end - text)));
    return 1;
}

static int32_t fail_with(mp_obj_t exception) {
    nlr_buf_t handler;
    if (nlr_push(&handler) == 0) {
        mp_obj_t code = mp_call_function_1(MP_STATE_VM(plugwasm_describe), exception);
        int32_t number = (int32_t)mp_obj_get_int_truncated(code);
        nlr_pop();
        return number;
    }
    return fail_plainly(exception);
}

/* Keeps the files that scripts can import, and runs the kit. The input: {"name.py": "source", …} */
static void run_kit(void) {
    mp_obj_t files = input_json();
    mp_obj_dict_get_map(files);
    MP_STATE_VM(plugwasm_files) = files;
    mp_import_name(MP_QSTR_extism, mp_const_none, MP_OBJ_NEW_SMALL_INT(0));
    gc_collect();
}

static int32_t boot_here(void) {
    nlr_buf_t handler;
    if (nlr_push(&handler) == 0) {
        run_kit();
        nlr_pop();
        return 0;
    }
    vstr_t text;
    mp_print_t print;
    vstr_init_print(&text, 256, &print);
    mp_obj_print_exception(&print, MP_OBJ_FROM_PTR(handler.ret_val));
    return pdk_fail(vstr_null_terminated_str(&text));
}

static int32_t load_here(void) {
    nlr_buf_t handler;
    if (nlr_push(&handler) == 0) {
        mp_obj_t answer = mp_call_function_1(MP_STATE_VM(plugwasm_load), read_input());
        gc_collect();
        mp_buffer_info_t view;
        mp_get_buffer_raise(answer, &view, MP_BUFFER_READ);
        extism_output_set(block_of(answer), view.len);
        nlr_pop();
        return 0;
    }
    return fail_with(MP_OBJ_FROM_PTR(handler.ret_val));
}

static int32_t call_here(int32_t index) {
    nlr_buf_t handler;
    if (nlr_push(&handler) == 0) {
        mp_obj_t code = mp_call_function_1(MP_STATE_VM(plugwasm_call), MP_OBJ_NEW_SMALL_INT(index));
        int32_t number = (int32_t)mp_obj_get_int_truncated(code);
        nlr_pop();
        return number;
    }
    return fail_with(MP_OBJ_FROM_PTR(handler.ret_val));
}

/* Where the stack begins: it grows downwards from there in each call. */
extern char __stack_high;
#define SET_STACK() mp_cstack_init_with_top(&__stack_high, STACK_LIMIT)

PDK_EXPORT("boot") int32_t boot(void) {
    port_is_loading = true;
    SET_STACK();
    if (!port_init_heap()) return pdk_fail("no memory for the interpreter");
    mp_init();
    int32_t code = boot_here();
    port_is_loading = false;
    return code;
}

PDK_EXPORT("load") int32_t load(void) {
    port_is_loading = true;
    int32_t code = load_here();
    port_is_loading = false;
    return code;
}

PDK_EXPORT("call") int32_t call(int32_t index) {
    port_renew_seed();
    int32_t code = call_here(index);
    port_flush_output();
    return code;
}
