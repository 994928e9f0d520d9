/* MicroPython's functions for characters, with a check of UTF-8 that refuses what Python refuses. */
#include <string.h>

#define utf8_check utf8_check_roughly
#include "py/unicode.c"
#undef utf8_check

bool utf8_check(const byte *text, size_t size) {
    for (size_t i = 0; i < size;) {
        byte lead = text[i++];
        if (lead < 0x80) {
            for (uint64_t word; size - i >= sizeof word; i += sizeof word) {
                memcpy(&word, text + i, sizeof word);
                if (word & 0x8080808080808080u) break;
            }
            continue;
        }
        size_t more = lead < 0xC2 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : lead < 0xF5 ? 3 : 0;
        if (!more || size - i < more) return false;
        byte least = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        byte most = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        if (text[i] < least || text[i] > most) return false;
        for (size_t k = 1; k < more; k++)
            if ((text[i + k] & 0xC0) != 0x80) return false;
        i += more;
    }
    return true;
}
