/* JSON: values from the input, and values to the output, each in one pass over memory.
 *
 * Unlike MicroPython's own module it refuses what is not JSON, joins the two halves of a character
 * that is escaped as a pair of surrogates, and makes the dict or list of each level at once, with the
 * size that it has in the end.
 */
#include <math.h>
#include <string.h>

#include "py/cstack.h"
#include "py/objlist.h"
#include "py/objstr.h"
#include "py/parsenum.h"
#include "py/runtime.h"
#include "py/unicode.h"

#include "plugwasm.h"
#include "port.h"

void port_need_utf8(const byte *text, size_t size, const char *what) {
    if (!utf8_check(text, size)) mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("%s is not UTF-8"), what);
}

/* Text that takes over the bytes of a vstr. Its hash is computed when it is needed. */
mp_obj_t port_text(vstr_t *text) {
    size_t size = text->len;
    if (!size) return MP_OBJ_NEW_QSTR(MP_QSTR_);
    char *data = vstr_null_terminated_str(text);
    mp_obj_str_t *made = mp_obj_malloc(mp_obj_str_t, &mp_type_str);
    made->len = size;
    made->hash = 0;
    made->data = (const byte *)data;
    return MP_OBJ_FROM_PTR(made);
}

/* ---- reading ---------------------------------------------------------------------------------- */

/* A function that is not repeated in one that recurses, whose native frame is to be small. */
#define APART static __attribute__((noinline))

#define KEYS 64

typedef struct reader {
    const byte *start, *at, *end;
    const char *what;
    /* The items of what is not closed yet, of all levels. */
    mp_obj_t *items;
    size_t count, room;
    /* Keys that came before, by a number that is made of the text: they repeat. */
    mp_obj_t keys[KEYS];
} reader;

APART NORETURN void refuse(const reader *from) {
    mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("%s is not JSON, at offset %d"), from->what, (int)(from->at - from->start));
}

APART void push(reader *from, mp_obj_t item) {
    if (from->count == from->room) {
        size_t room = from->room ? 2 * from->room : 16;
        from->items = m_renew(mp_obj_t, from->items, from->room, room);
        from->room = room;
    }
    from->items[from->count++] = item;
}

static void skip_space(reader *from) {
    const byte *at = from->at;
    while (at < from->end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) at++;
    from->at = at;
}

APART void expect(reader *from, byte wanted) {
    skip_space(from);
    if (from->at == from->end || *from->at != wanted) refuse(from);
    from->at++;
}

/* The key with this text: the same object as before, most often. */
APART mp_obj_t find_key(reader *from, const byte *text, size_t size) {
    if (!size) return MP_OBJ_NEW_QSTR(MP_QSTR_);
    mp_obj_t *known = &from->keys[(size + 5u * text[0] + 11u * text[size / 2] + 23u * text[size - 1]) % KEYS];
    if (*known != MP_OBJ_NULL) {
        GET_STR_DATA_LEN(*known, data, length);
        if (length == size && !memcmp(data, text, size)) return *known;
    }
    return *known = mp_obj_new_str((const char *)text, size);
}

static uint32_t read_escaped_unit(reader *from) {
    uint32_t unit = 0;
    for (int i = 0; i < 4; i++, from->at++) {
        if (from->at == from->end || !unichar_isxdigit(*from->at)) refuse(from);
        unit = unit * 16 + unichar_xdigit_value(*from->at);
    }
    return unit;
}

APART void read_escape(reader *from, vstr_t *into) {
    if (from->at == from->end) refuse(from);
    byte letter = *from->at++;
    switch (letter) {
    case '"': case '\\': case '/': vstr_add_byte(into, letter); return;
    case 'b': vstr_add_byte(into, '\b'); return;
    case 'f': vstr_add_byte(into, '\f'); return;
    case 'n': vstr_add_byte(into, '\n'); return;
    case 'r': vstr_add_byte(into, '\r'); return;
    case 't': vstr_add_byte(into, '\t'); return;
    case 'u': break;
    default: from->at--; refuse(from);
    }
    uint32_t unit = read_escaped_unit(from);
    if (unit >= 0xD800 && unit < 0xDC00 && from->end - from->at > 1 && from->at[0] == '\\' && from->at[1] == 'u') {
        const byte *before = from->at;
        from->at += 2;
        uint32_t low = read_escaped_unit(from);
        if (low >= 0xDC00 && low < 0xE000)
            unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
        else
            from->at = before;
    }
    /* Half of a character has no UTF-8. */
    if (unit >= 0xD800 && unit < 0xE000) unit = 0xFFFD;
    vstr_add_char(into, unit);
}

/* The end of the characters that stand for themselves. */
static const byte *skip_plain(const byte *at, const byte *end) {
    while (at < end && *at >= 0x20 && *at != '"' && *at != '\\') at++;
    return at;
}

APART mp_obj_t read_string(reader *from, bool is_key) {
    const byte *begin = from->at, *end = skip_plain(begin, from->end);
    from->at = end;
    if (end < from->end && *end == '"') {
        from->at++;
        if (is_key) return find_key(from, begin, (size_t)(end - begin));
        vstr_t text;
        vstr_init(&text, (size_t)(end - begin) + 1);
        vstr_add_strn(&text, (const char *)begin, (size_t)(end - begin));
        return port_text(&text);
    }
    vstr_t text;
    vstr_init(&text, (size_t)(end - begin) + 16);
    for (;;) {
        vstr_add_strn(&text, (const char *)begin, (size_t)(end - begin));
        if (from->at == from->end || *from->at < 0x20) refuse(from);
        if (*from->at++ == '"') break;
        read_escape(from, &text);
        begin = from->at;
        from->at = end = skip_plain(begin, from->end);
    }
    return is_key ? find_key(from, (const byte *)text.buf, text.len) : port_text(&text);
}

static bool is_digit(const reader *from) {
    return from->at < from->end && *from->at >= '0' && *from->at <= '9';
}

static void skip_digits(reader *from) {
    if (!is_digit(from)) refuse(from);
    while (is_digit(from)) from->at++;
}

APART mp_obj_t read_number(reader *from) {
    const byte *begin = from->at;
    bool is_whole = true;
    if (*from->at == '-') from->at++;
    if (is_digit(from) && *from->at == '0')
        from->at++;
    else
        skip_digits(from);
    if (from->at < from->end && *from->at == '.') {
        is_whole = false;
        from->at++;
        skip_digits(from);
    }
    if (from->at < from->end && (*from->at | 0x20) == 'e') {
        is_whole = false;
        from->at++;
        if (from->at < from->end && (*from->at == '+' || *from->at == '-')) from->at++;
        skip_digits(from);
    }
    size_t size = (size_t)(from->at - begin);
    if (!is_whole) return mp_parse_num_float((const char *)begin, size, false, NULL);
    if (size > 9) return mp_parse_num_integer((const char *)begin, size, 10, NULL);
    mp_int_t number = 0;
    for (const byte *at = begin + (*begin == '-'); at < from->at; at++) number = number * 10 + (*at - '0');
    return MP_OBJ_NEW_SMALL_INT(*begin == '-' ? -number : number);
}

APART mp_obj_t read_word(reader *from, const char *word, mp_obj_t value) {
    size_t size = strlen(word);
    if ((size_t)(from->end - from->at) < size || memcmp(from->at, word, size)) refuse(from);
    from->at += size;
    return value;
}

static mp_obj_t read_value(reader *from);

/* Whether the bracket that has been read is closed at once. */
APART bool is_empty(reader *from, byte closing) {
    skip_space(from);
    bool found = from->at < from->end && *from->at == closing;
    if (found) from->at++;
    return found;
}

/* Whether another item follows. */
APART bool has_more(reader *from, byte closing) {
    skip_space(from);
    if (from->at == from->end || (*from->at != ',' && *from->at != closing)) refuse(from);
    return *from->at++ == ',';
}

static mp_obj_t read_list(reader *from) {
    size_t first = from->count;
    if (is_empty(from, ']')) return mp_obj_new_list(0, NULL);
    do push(from, read_value(from));
    while (has_more(from, ']'));
    mp_obj_t made = mp_obj_new_list(from->count - first, from->items + first);
    from->count = first;
    return made;
}

static mp_obj_t read_dict(reader *from) {
    size_t first = from->count;
    if (is_empty(from, '}')) return mp_obj_new_dict(0);
    do {
        expect(from, '"');
        push(from, read_string(from, true));
        expect(from, ':');
        push(from, read_value(from));
    } while (has_more(from, '}'));
    size_t pairs = (from->count - first) / 2;
    /* A large table that is full is slow. */
    mp_obj_t made = mp_obj_new_dict(pairs < 8 ? pairs : pairs + pairs / 2);
    for (size_t i = first; i < from->count; i += 2) mp_obj_dict_store(made, from->items[i], from->items[i + 1]);
    from->count = first;
    return made;
}

static mp_obj_t read_value(reader *from) {
    mp_cstack_check();
    skip_space(from);
    if (from->at == from->end) refuse(from);
    switch (*from->at) {
    case '{': from->at++; return read_dict(from);
    case '[': from->at++; return read_list(from);
    case '"': from->at++; return read_string(from, false);
    case 't': return read_word(from, "true", mp_const_true);
    case 'f': return read_word(from, "false", mp_const_false);
    case 'n': return read_word(from, "null", mp_const_none);
    default: return read_number(from);
    }
}

/* The value that JSON says. The bytes must stay where they are. `what` is for messages. */
mp_obj_t port_read_json(const byte *text, size_t size, const char *what) {
    if (!size) mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("%s is empty, but JSON was expected"), what);
    port_need_utf8(text, size, what);
    reader from = {.start = text, .at = text, .end = text + size, .what = what};
    mp_obj_t value = read_value(&from);
    skip_space(&from);
    if (from.at != from.end) refuse(&from);
    return value;
}

/* ---- writing ---------------------------------------------------------------------------------- */

/* Makes room for so many bytes, and as much again as there is: a vstr by itself grows by 16. */
static void reserve(vstr_t *into, size_t size) {
    if (into->alloc - into->len < size) vstr_hint_size(into, into->len + size);
}

APART void write_text(vstr_t *into, const byte *text, size_t size) {
    reserve(into, size + 2);
    vstr_add_byte(into, '"');
    for (const byte *end = text + size; text < end;) {
        const byte *plain = skip_plain(text, end);
        vstr_add_strn(into, (const char *)text, (size_t)(plain - text));
        text = plain;
        if (text == end) break;
        byte letter = *text++;
        const char *short_one = letter == '\n' ? "\\n" : letter == '\r' ? "\\r" : letter == '\t' ? "\\t"
                              : letter == '"' ? "\\\"" : letter == '\\' ? "\\\\" : NULL;
        if (short_one)
            vstr_add_str(into, short_one);
        else
            vstr_printf(into, "\\u%04x", letter);
    }
    vstr_add_byte(into, '"');
}

APART bool write_simple(vstr_t *into, mp_obj_t value) {
    reserve(into, 32);
    if (mp_obj_is_small_int(value)) {
        char digits[24];
        vstr_add_strn(into, digits, (size_t)(pdk_put_i64(digits, MP_OBJ_SMALL_INT_VALUE(value)) - digits));
        return true;
    }
    if (value == mp_const_none) return vstr_add_str(into, "null"), true;
    if (value == mp_const_true) return vstr_add_str(into, "true"), true;
    if (value == mp_const_false) return vstr_add_str(into, "false"), true;
    mp_print_t print = {into, (mp_print_strn_t)vstr_add_strn};
    if (mp_obj_is_float(value)) {
        if (!isfinite(mp_obj_get_float(value)))
            mp_raise_ValueError(MP_ERROR_TEXT("JSON has no numbers that are infinite or not a number"));
    } else if (!mp_obj_is_exact_type(value, &mp_type_int)) {
        return false;
    }
    mp_obj_print_helper(&print, value, PRINT_REPR);
    return true;
}

APART void write_key(vstr_t *into, mp_obj_t key) {
    if (mp_obj_is_str(key)) {
        GET_STR_DATA_LEN(key, text, size);
        write_text(into, text, size);
        return;
    }
    vstr_add_byte(into, '"');
    if (!write_simple(into, key))
        mp_raise_msg_varg(&mp_type_TypeError, MP_ERROR_TEXT("%s is not a key that JSON has"), mp_obj_get_type_str(key));
    vstr_add_byte(into, '"');
}

/* Writes a value. What JSON does not have is given to `other`, which returns what it has. */
void port_write_json(vstr_t *into, mp_obj_t value, mp_obj_t other) {
    /* As much of the stack in memory as this takes of the native one: both have to end together. */
    char frame[192];
    __asm__ volatile("" : : "r"(frame) : "memory");
    mp_cstack_check();
    if (mp_obj_is_str(value)) {
        GET_STR_DATA_LEN(value, text, size);
        write_text(into, text, size);
    } else if (mp_obj_is_exact_type(value, &mp_type_list) || mp_obj_is_exact_type(value, &mp_type_tuple)) {
        size_t count;
        mp_obj_t *items;
        vstr_add_byte(into, '[');
        /* What `other` runs may change the list. */
        for (size_t i = 0; mp_obj_get_array(value, &count, &items), i < count; i++) {
            if (i) vstr_add_byte(into, ',');
            port_write_json(into, items[i], other);
        }
        vstr_add_byte(into, ']');
    } else if (mp_obj_is_dict_or_ordereddict(value)) {
        mp_map_t *map = mp_obj_dict_get_map(value);
        bool is_first = true;
        vstr_add_byte(into, '{');
        for (size_t i = 0; i < map->alloc; i++) {
            if (!mp_map_slot_is_filled(map, i)) continue;
            if (!is_first) vstr_add_byte(into, ',');
            is_first = false;
            write_key(into, map->table[i].key);
            vstr_add_byte(into, ':');
            port_write_json(into, map->table[i].value, other);
        }
        vstr_add_byte(into, '}');
    } else if (!write_simple(into, value)) {
        mp_obj_t plain = mp_call_function_1(other, value);
        if (plain == value)
            mp_raise_msg_varg(&mp_type_TypeError, MP_ERROR_TEXT("%s is not something that JSON has"), mp_obj_get_type_str(value));
        port_write_json(into, plain, other);
    }
}
