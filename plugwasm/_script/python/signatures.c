/* What a script says about the types of its functions and of the fields of its classes.
 *
 * MicroPython drops annotations. This reads them from the text of a script that it has accepted: of
 * functions and classes that begin in the first column, one logical line after the other.
 */
#include <string.h>

#include "py/runtime.h"

#include "port.h"

typedef struct scanner {
    const char *at, *end;
} scanner;

static bool is_name_start(char c) {
    return c == '_' || (c | 32) >= 'a' && (c | 32) <= 'z' || (unsigned char)c >= 128;
}

static bool is_name(char c) { return is_name_start(c) || c >= '0' && c <= '9'; }

static void skip_string(scanner *s) {
    char quote = *s->at;
    int quotes = s->end - s->at >= 3 && s->at[1] == quote && s->at[2] == quote ? 3 : 1;
    for (s->at += quotes; s->at < s->end; s->at++) {
        if (*s->at == '\\') {
            if (s->at + 1 < s->end) s->at++;
        } else if (*s->at == quote) {
            if (quotes == 1) {
                s->at++;
                return;
            }
            if (s->end - s->at >= 3 && s->at[1] == quote && s->at[2] == quote) {
                s->at += 3;
                return;
            }
        }
    }
}

/* Moves to the first of these characters that is outside of brackets, strings and comments, or to
 * the end of the logical line. */
static void skip_to(scanner *s, const char *stops, bool in_brackets) {
    int depth = 0;
    while (s->at < s->end) {
        char c = *s->at;
        if (depth == 0 && c && strchr(stops, c)) return;
        if (c == '\n' && depth == 0 && !in_brackets) return;
        if (c == '"' || c == '\'') {
            skip_string(s);
            continue;
        }
        if (c == '#') {
            while (s->at < s->end && *s->at != '\n') s->at++;
            continue;
        }
        if (c == '(' || c == '[' || c == '{') depth++;
        if (c == ')' || c == ']' || c == '}') depth--;
        if (c == '\\' && s->at + 1 < s->end) s->at++;
        s->at++;
    }
}

static void skip_line(scanner *s) {
    skip_to(s, "", false);
    if (s->at < s->end) s->at++;
}

static void skip_blanks(scanner *s, bool in_brackets) {
    while (s->at < s->end) {
        char c = *s->at;
        if (c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\n' && in_brackets)
            s->at++;
        else if (c == '\\' && s->end - s->at > 1)
            s->at += 2;
        else if (c == '#' && in_brackets)
            while (s->at < s->end && *s->at != '\n') s->at++;
        else
            return;
    }
}

static bool read_name(scanner *s, const char **name, size_t *size) {
    *name = s->at;
    if (s->at >= s->end || !is_name_start(*s->at)) return false;
    while (s->at < s->end && is_name(*s->at)) s->at++;
    *size = (size_t)(s->at - *name);
    return true;
}

static bool read_word(scanner *s, const char *word) {
    size_t size = strlen(word);
    if ((size_t)(s->end - s->at) <= size || memcmp(s->at, word, size) || is_name(s->at[size])) return false;
    s->at += size;
    skip_blanks(s, false);
    return true;
}

static mp_obj_t read_annotation(scanner *s, const char *stops, bool in_brackets) {
    skip_blanks(s, in_brackets);
    const char *from = s->at;
    skip_to(s, stops, in_brackets);
    const char *to = s->at;
    while (to > from && strchr(" \t\r\n\f", to[-1])) to--;
    return mp_obj_new_str(from, (size_t)(to - from));
}

/* Reads `name: annotation = value, …)`, from behind the opening bracket. */
static mp_obj_t read_parameters(scanner *s) {
    mp_obj_t parameters = mp_obj_new_list(0, NULL);
    while (s->at < s->end) {
        skip_blanks(s, true);
        const char *stars = s->at, *name = "";
        while (s->at < s->end && (*s->at == '*' || *s->at == '/')) s->at++;
        size_t star_count = (size_t)(s->at - stars), size = 0;
        skip_blanks(s, true);
        bool is_named = read_name(s, &name, &size);
        skip_blanks(s, true);
        mp_obj_t annotation = mp_const_none;
        bool has_default = false;
        if (s->at < s->end && *s->at == ':') {
            s->at++;
            annotation = read_annotation(s, ",=)", true);
        }
        if (s->at < s->end && *s->at == '=') {
            has_default = true;
            s->at++;
        }
        skip_to(s, ",)", true);
        if (is_named || star_count) {
            mp_obj_t items[] = {
                mp_obj_new_str(name, size), annotation, mp_obj_new_bool(has_default),
                mp_obj_new_str(stars, star_count),
            };
            mp_obj_list_append(parameters, mp_obj_new_tuple(4, items));
        }
        if (s->at >= s->end || *s->at++ == ')') break;
    }
    return parameters;
}

static void read_function(scanner *s, mp_obj_t found) {
    const char *name;
    size_t size;
    if (!read_name(s, &name, &size)) return;
    skip_blanks(s, false);
    if (s->at >= s->end || *s->at++ != '(') return;
    mp_obj_t parameters = read_parameters(s), result = mp_const_none;
    skip_blanks(s, false);
    if (s->end - s->at > 2 && s->at[0] == '-' && s->at[1] == '>') {
        s->at += 2;
        result = read_annotation(s, ":", false);
    }
    mp_obj_t items[] = {MP_OBJ_NEW_QSTR(MP_QSTR_function), mp_obj_new_str(name, size), parameters, result};
    mp_obj_list_append(found, mp_obj_new_tuple(4, items));
    skip_line(s);
}

static void read_class(scanner *s, mp_obj_t found) {
    const char *name;
    size_t size, body_indent = 0;
    if (!read_name(s, &name, &size)) return;
    mp_obj_t fields = mp_obj_new_list(0, NULL);
    skip_line(s);
    while (s->at < s->end) {
        const char *line = s->at;
        skip_blanks(s, false);
        size_t indent = (size_t)(s->at - line);
        bool is_empty = s->at >= s->end || *s->at == '\n' || *s->at == '#';
        if (!is_empty && indent == 0) {
            s->at = line;
            break;
        }
        if (!is_empty && !body_indent) body_indent = indent;
        const char *field;
        size_t field_size;
        if (!is_empty && indent == body_indent && read_name(s, &field, &field_size)) {
            skip_blanks(s, false);
            if (s->at < s->end && *s->at == ':') {
                s->at++;
                mp_obj_t annotation = read_annotation(s, "=", false);
                mp_obj_t items[] = {mp_obj_new_str(field, field_size), annotation};
                if (!(field_size == 4 && !memcmp(field, "else", 4))) mp_obj_list_append(fields, mp_obj_new_tuple(2, items));
            }
        }
        skip_line(s);
    }
    mp_obj_t items[] = {MP_OBJ_NEW_QSTR(MP_QSTR_class), mp_obj_new_str(name, size), fields};
    mp_obj_list_append(found, mp_obj_new_tuple(3, items));
}

mp_obj_t port_read_signatures(mp_obj_t source) {
    size_t size;
    const char *text = mp_obj_str_get_data(source, &size);
    scanner scan = {text, text + size}, *s = &scan;
    mp_obj_t found = mp_obj_new_list(0, NULL);
    while (s->at < s->end) {
        const char *line = s->at;
        if (read_word(s, "def") || read_word(s, "async") && read_word(s, "def"))
            read_function(s, found);
        else if (s->at == line && read_word(s, "class"))
            read_class(s, found);
        else
            skip_line(s);
    }
    return found;
}
