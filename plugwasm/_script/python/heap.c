/* MicroPython's heap, which grows with the memory of the module.
 *
 * The collector is conservative: an object lives as long as anything that may be a pointer to its
 * start is found in the interpreter's state, in a live object, or on the stack. In Wasm the stack
 * cannot be searched: values are in locals of functions. So each function that may allocate is
 * rewritten when the engine is built (see roots.py): what it still needs after a call is also on the
 * stack in the linear memory during the call. This is the stack that is searched here.
 */
#include "py/mpstate.h"

/* The allocator grows the heap where MicroPython's would fail. */
#define gc_alloc gc_alloc_in_heap
#define gc_realloc gc_realloc_in_heap
#include "py/gc.c"
#undef gc_alloc
#undef gc_realloc

#include "port.h"

#define PAGE 65536u
#define FIRST_HEAP (2 * PAGE)
#define LEAST_GROWTH (4 * PAGE)
/* The tables of the heap take at most this part of it: 3 bits for each block of 16 bytes. */
#define TABLES_OF(size) ((size) / 32 + 256)

#define ROOM 64

static size_t heap_bytes;

/* Adds memory to the heap: about as much as it has, or what the host still gives, but not less than
 * an object of this size needs. */
static bool grow(size_t object) {
    if (object > UINT32_MAX / 2) return false;
    size_t least = object + TABLES_OF(object) + PAGE, wanted = heap_bytes;
    if (object == 0) least = PAGE;
    if (wanted < LEAST_GROWTH) wanted = LEAST_GROWTH;
    if (wanted < least) wanted = least;
    for (;; wanted = wanted / 2 < least ? least : wanted / 2) {
        size_t pages = (wanted + PAGE - 1) / PAGE, before = __builtin_wasm_memory_grow(0, pages);
        if (before != (size_t)-1) {
            char *start = (char *)(before * PAGE);
            /* The very last byte of 4 GiB has no address after it. */
            char *end = start + pages * PAGE - (before + pages == PAGE ? 16 : 0);
            if (heap_bytes)
                gc_add(start, end);
            else
                gc_init(start, end);
            heap_bytes += pages * PAGE;
            return true;
        }
        if (wanted <= least) return false;
    }
}

/* Lets the next allocations begin their search where at least ROOM blocks in a row are free. Each of
 * more than one block begins it there again, past all objects of the kit and of the script. */
static void skip_gaps(void) {
    for (mp_state_mem_area_t *area = &MP_STATE_MEM(area); area; area = NEXT_AREA(area)) {
        size_t i = 0, run = 0;
        while (i < area->gc_alloc_table_byte_len && run < ROOM / BLOCKS_PER_ATB) run = area->gc_alloc_table_start[i++] ? 0 : run + 1;
        area->gc_last_free_atb_index = run < ROOM / BLOCKS_PER_ATB ? i : i - run;
    }
}

/* Lets them begin at the start. */
static void use_gaps(void) {
    for (mp_state_mem_area_t *area = &MP_STATE_MEM(area); area; area = NEXT_AREA(area)) area->gc_last_free_atb_index = 0;
    MP_STATE_MEM(gc_last_free_area) = &MP_STATE_MEM(area);
}

void *gc_alloc(size_t size, unsigned int flags) {
    void *found = gc_alloc_in_heap(size, flags);
    if (found || !size || gc_is_locked()) return found;
    use_gaps();
    found = gc_alloc_in_heap(size, flags);
    return found || !grow(size) ? found : gc_alloc_in_heap(size, flags);
}

void *gc_realloc(void *old, size_t size, bool allow_move) {
    void *found = gc_realloc_in_heap(old, size, allow_move);
    if (found || !size || !allow_move || gc_is_locked() || !grow(size)) return found;
    return gc_realloc_in_heap(old, size, allow_move);
}

bool port_init_heap(void) { return grow(FIRST_HEAP); }

/* Marks what the stack refers to. MicroPython's own search takes pointers to the start of an object
 * only; some of its functions, and what the compiler makes of loops, keep a pointer into it. */
static void search(void **at, void **end) {
    for (; at < end; at++) {
        char *pointer = (char *)((uintptr_t)*at & ~(uintptr_t)(BYTES_PER_BLOCK - 1));
        mp_state_mem_area_t *area = gc_get_ptr_area(pointer);
        if (!area) continue;
        size_t block = BLOCK_FROM_PTR(area, (byte *)pointer);
        while (block && ATB_GET_KIND(area, block) == AT_TAIL) block--;
        void *start = (void *)PTR_FROM_BLOCK(area, block);
        gc_collect_root(&start, 1);
    }
}

/* roots.py knows this function by its name: what cannot reach it keeps its locals where they are. */
__attribute__((noinline, used)) void port_search_stack(void) {
    volatile int here;
    char *from = (char *)&here;
    /* The compiler must not know that this points to one variable. */
    __asm__("" : "+r"(from));
    search((void **)from, (void **)MP_STATE_THREAD(stack_top));
}

/* What objects take of the heap. */
static size_t used_bytes(void) {
    size_t blocks = 0;
    for (mp_state_mem_area_t *area = &MP_STATE_MEM(area); area; area = NEXT_AREA(area)) {
        const byte *table = area->gc_alloc_table_start;
        for (size_t i = 0; i < area->gc_alloc_table_byte_len; i++) {
            unsigned int kinds = table[i];
            blocks += (size_t)__builtin_popcount((kinds | kinds >> 1) & 0x55);
        }
    }
    return blocks * BYTES_PER_BLOCK;
}

void gc_collect(void) {
    gc_collect_start();
    port_search_stack();
    gc_collect_end();
    /* With little free the next collection would come soon, and the one after it. */
    size_t used = used_bytes();
    if (heap_bytes - used < used / 2) grow(0);
    skip_gaps();
}
