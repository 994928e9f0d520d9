/* What MicroPython asks of the system. Text that is printed goes to the log of the plugin. */
#include "py/mpconfig.h"

void mp_hal_stdout_tx_str(const char *text);
mp_uint_t mp_hal_stdout_tx_strn(const char *text, size_t size);
void mp_hal_stdout_tx_strn_cooked(const char *text, size_t size);
mp_uint_t mp_hal_ticks_ms(void);
mp_uint_t mp_hal_ticks_us(void);
mp_uint_t mp_hal_ticks_cpu(void);
uint64_t mp_hal_time_ns(void);
void mp_hal_delay_ms(mp_uint_t ms);
void mp_hal_delay_us(mp_uint_t us);
static inline void mp_hal_set_interrupt_char(int character) { (void)character; }
