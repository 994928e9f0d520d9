/* MicroPython for plugins: the whole language, and the modules that need nothing of a system.
 *
 * There are no files, no network, no threads and no access to memory by address. Values are 32 bits
 * wide, floats are doubles, integers have any size.
 */
#include <alloca.h>
#include <stddef.h>
#include <stdint.h>

#define MICROPY_CONFIG_ROM_LEVEL (MICROPY_CONFIG_ROM_LEVEL_EVERYTHING)

/* ---- values, memory and the stack ------------------------------------------------------------- */

typedef intptr_t mp_int_t;
typedef uintptr_t mp_uint_t;
typedef long mp_off_t;
#define MP_SSIZE_MAX (0x7fffffff)

#define MICROPY_FLOAT_IMPL (MICROPY_FLOAT_IMPL_DOUBLE)
#define MICROPY_LONGINT_IMPL (MICROPY_LONGINT_IMPL_MPZ)
#define MICROPY_NLR_SETJMP (1)
#define MICROPY_OPT_COMPUTED_GOTO (0)
#define MICROPY_ENABLE_GC (1)
#define MICROPY_GC_SPLIT_HEAP (1)
#define MICROPY_GC_ALLOC_THRESHOLD (1)
#define MICROPY_ALLOC_GC_STACK_SIZE (1024)
#define MICROPY_MALLOC_USES_ALLOCATED_SIZE (1)
#define MICROPY_QSTR_BYTES_IN_HASH (2)
#define MICROPY_QSTR_BYTES_IN_LEN (2)
#define MICROPY_ALLOC_PATH_MAX (256)
#define MICROPY_STACK_CHECK (1)
#define MICROPY_ENABLE_EMERGENCY_EXCEPTION_BUF (1)
#define MICROPY_EMERGENCY_EXCEPTION_BUF_SIZE (256)
#define MICROPY_ENABLE_VM_ABORT (0)
#define MICROPY_ENABLE_SCHEDULER (0)
#define MICROPY_KBD_EXCEPTION (0)

/* ---- the language ----------------------------------------------------------------------------- */

#define MICROPY_ENABLE_SOURCE_LINE (1)
#define MICROPY_ENABLE_DOC_STRING (1)
#define MICROPY_ERROR_REPORTING (MICROPY_ERROR_REPORTING_DETAILED)
#define MICROPY_COMP_ALLOW_TOP_LEVEL_AWAIT (0)
#define MICROPY_PY_FSTRINGS (1)
#define MICROPY_PY_SYS_EXC_INFO (1)
#define MICROPY_PY_FUNCTION_ATTRS_CODE (0)
#define MICROPY_PY_BUILTINS_CODE (MICROPY_PY_BUILTINS_CODE_MINIMUM)
#define MICROPY_PY_GC_COLLECT_RETVAL (1)
#define MICROPY_PY_BUILTINS_HELP (0)
#define MICROPY_PY_BUILTINS_INPUT (0)
#define MICROPY_HELPER_REPL (0)
#define MICROPY_REPL_AUTO_INDENT (0)
#define MICROPY_PERSISTENT_CODE_LOAD (0)
#define MICROPY_PY_MARSHAL (0)
#define MICROPY_ENABLE_EXTERNAL_IMPORT (1)

/* ---- modules ---------------------------------------------------------------------------------- */

#define MICROPY_VFS (0)
#define MICROPY_PY_VFS (0)
#define MICROPY_PY_OS (0)
#define MICROPY_PY_IO (1)
#define MICROPY_PY_ASYNCIO (0)
#define MICROPY_PY_UCTYPES (0)
#define MICROPY_PY_FRAMEBUF (0)
#define MICROPY_PY_PLATFORM (0)
#define MICROPY_PY_SELECT (0)
#define MICROPY_PY_MACHINE (0)
#define MICROPY_PY_THREAD (0)
#define MICROPY_PY_RE_DEBUG (0)
#define MICROPY_PY_SYS_STDFILES (1)
#define MICROPY_PY_SYS_STDIO_BUFFER (0)
#define MICROPY_PY_SYS_PS1_PS2 (0)
#define MICROPY_PY_SYS_PLATFORM "wasm"
#define MICROPY_PY_MICROPYTHON_MEM_INFO (0)
#define MICROPY_PY_MICROPYTHON_HEAP_LOCKED (0)
#define MICROPY_PY_CRYPTOLIB (0)
#define MICROPY_PY_HASHLIB (1)
#define MICROPY_PY_HASHLIB_MD5 (0)
#define MICROPY_PY_HASHLIB_SHA1 (0)
#define MICROPY_PY_DEFLATE (1)
#define MICROPY_PY_TIME (1)
#define MICROPY_PY_TIME_GMTIME_LOCALTIME_MKTIME (1)
#define MICROPY_PY_TIME_TIME_TIME_NS (1)
#define MICROPY_PY_TIME_INCLUDEFILE "time_of_host.h"
#define MICROPY_EPOCH_IS_1970 (1)
#define MICROPY_PY_RANDOM (1)
#define MICROPY_PY_RANDOM_EXTRA_FUNCS (1)
uint32_t port_random_seed(void);
#define MICROPY_PY_RANDOM_SEED_INIT_FUNC (port_random_seed())
#define MICROPY_USE_INTERNAL_ERRNO (1)
#define MICROPY_USE_INTERNAL_PRINTF (0)

#define MICROPY_HW_BOARD_NAME "plugwasm"
#define MICROPY_HW_MCU_NAME "wasm32"
#define MP_STATE_PORT MP_STATE_VM
