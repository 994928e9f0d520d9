/* What MicroPython asks of a system: a clock, and somewhere to print to.
 *
 * While a script is loaded there is no system. What it then finds is the same each time, so that the
 * module that is made of it is.
 */
#include <string.h>

#include "plugwasm.h"
#include "py/builtin.h"
#include "py/mphal.h"
#include "py/mperrno.h"
#include "py/runtime.h"
#include "py/stream.h"

#include "port.h"

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(name))) extern
WASI("clock_time_get") uint32_t wasi_clock_time_get(uint32_t clock, uint64_t precision, uint64_t *time);
WASI("poll_oneoff") uint32_t wasi_poll_oneoff(const void *in, void *out, size_t count, size_t *events);
enum { REALTIME, MONOTONIC };

bool port_is_loading;

/* ---- time ------------------------------------------------------------------------------------- */

static uint64_t read_clock(uint32_t clock) {
    uint64_t time = 0;
    if (!port_is_loading) wasi_clock_time_get(clock, 1000, &time);
    return time;
}

uint64_t mp_hal_time_ns(void) { return read_clock(REALTIME); }
mp_uint_t mp_hal_ticks_ms(void) { return (mp_uint_t)(read_clock(MONOTONIC) / 1000000); }
mp_uint_t mp_hal_ticks_us(void) { return (mp_uint_t)(read_clock(MONOTONIC) / 1000); }
mp_uint_t mp_hal_ticks_cpu(void) { return (mp_uint_t)read_clock(MONOTONIC); }

static void sleep_for(uint64_t nanoseconds) {
    if (port_is_loading || !nanoseconds) return;
    struct {
        uint64_t userdata;
        uint64_t tag; /* 0: a clock */
        uint64_t clock, timeout, precision, flags;
    } subscription = {.clock = MONOTONIC, .timeout = nanoseconds};
    uint64_t event[4];
    size_t count;
    wasi_poll_oneoff(&subscription, event, 1, &count);
}

void mp_hal_delay_ms(mp_uint_t ms) { sleep_for((uint64_t)ms * 1000000); }
void mp_hal_delay_us(mp_uint_t us) { sleep_for((uint64_t)us * 1000); }

/* ---- printing --------------------------------------------------------------------------------- */

/* A line becomes a message of the log. A longer one is cut into several. */
static char line[1024];
static size_t line_size;

void port_flush_output(void) {
    if (!line_size) return;
    size_t size = line_size;
    line_size = 0;
    if (port_is_loading || !pdk_log_enabled(PDK_INFO)) return;
    pdk_handle block = pdk_block(line, size);
    if (block) extism_log_info(block);
}

static size_t whole_characters(void) {
    size_t end = line_size;
    while (end && line_size - end < 3 && ((uint8_t)line[end - 1] & 0xC0) == 0x80) end--;
    return end && (uint8_t)line[end - 1] >= 0xC0 ? end - 1 : line_size;
}

mp_uint_t mp_hal_stdout_tx_strn(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\n') {
            port_flush_output();
            continue;
        }
        if (line_size == sizeof line) {
            size_t kept = whole_characters();
            char rest[4];
            size_t moved = line_size - kept;
            memcpy(rest, line + kept, moved);
            line_size = kept;
            port_flush_output();
            memcpy(line, rest, moved);
            line_size = moved;
        }
        line[line_size++] = text[i];
    }
    return size;
}

void mp_hal_stdout_tx_strn_cooked(const char *text, size_t size) { mp_hal_stdout_tx_strn(text, size); }
void mp_hal_stdout_tx_str(const char *text) { mp_hal_stdout_tx_strn(text, strlen(text)); }

/* `sys.stdout` and `sys.stderr`. There is nothing to read from `sys.stdin`. */
static mp_uint_t write_text(mp_obj_t self, const void *text, mp_uint_t size, int *error) {
    (void)self, (void)error;
    return mp_hal_stdout_tx_strn(text, size);
}

static mp_uint_t read_nothing(mp_obj_t self, void *into, mp_uint_t size, int *error) {
    (void)self, (void)into, (void)size, (void)error;
    return 0;
}

static mp_uint_t control(mp_obj_t self, mp_uint_t request, uintptr_t argument, int *error) {
    (void)self, (void)argument;
    if (request == MP_STREAM_FLUSH) return 0;
    *error = MP_EINVAL;
    return MP_STREAM_ERROR;
}

static const mp_stream_p_t standard_stream = {
    .read = read_nothing, .write = write_text, .ioctl = control, .is_text = true,
};

static const mp_rom_map_elem_t stream_methods_table[] = {
    {MP_ROM_QSTR(MP_QSTR_write), MP_ROM_PTR(&mp_stream_write_obj)},
    {MP_ROM_QSTR(MP_QSTR_read), MP_ROM_PTR(&mp_stream_read_obj)},
    {MP_ROM_QSTR(MP_QSTR_readline), MP_ROM_PTR(&mp_stream_unbuffered_readline_obj)},
    {MP_ROM_QSTR(MP_QSTR_flush), MP_ROM_PTR(&mp_stream_flush_obj)},
};
static MP_DEFINE_CONST_DICT(stream_methods, stream_methods_table);
static MP_DEFINE_CONST_OBJ_TYPE(stream_type, MP_QSTR_TextIOWrapper, MP_TYPE_FLAG_NONE, protocol, &standard_stream, locals_dict, &stream_methods);

const mp_obj_base_t mp_sys_stdin_obj = {&stream_type}, mp_sys_stdout_obj = {&stream_type}, mp_sys_stderr_obj = {&stream_type};

/* ---- what there is not ------------------------------------------------------------------------ */

static mp_obj_t open_file(size_t n, const mp_obj_t *args, mp_map_t *named) {
    (void)n, (void)args, (void)named;
    mp_raise_msg(&mp_type_OSError, MP_ERROR_TEXT("a plugin has no files"));
}
MP_DEFINE_CONST_FUN_OBJ_KW(mp_builtin_open_obj, 0, open_file);

/* Only if an exception is raised outside of all handlers, which engine.c rules out. */
void nlr_jump_fail(void *value) {
    (void)value;
    __builtin_trap();
}

/* longjmp throws an exception with this tag. */
__asm__(".globl __c_longjmp\n.tagtype __c_longjmp i32\n__c_longjmp:\n");
