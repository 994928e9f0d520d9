;; The kernel: the functions of `extism:host/env` that plugins call most, as a Wasm module.
;;
;; It owns two memories. Plugins reach the first, $heap, only through the load and store functions
;; below; handles are byte offsets into it. The second, $book, holds the bookkeeping. No plugin can
;; address it, so a plugin that writes anywhere can damage only its own data: sizes, free lists,
;; input, output and error are out of its reach.
;;
;; The first 28 KiB of $book are the table of config and vars (table.wat, which belongs to this
;; module). The records of $heap follow: so near, because a pool of instances keeps the first pages
;; of each memory, and gives back the others (`_KEPT_RESIDENT` in _engine/module.py). $heap is
;; divided into granules of 32 bytes; there is a record of 16 bytes for each granule at which a block
;; starts, granule 0's at 28688:
;;
;;      +0  size of the block in granules, with the top bit set while it is live, the next bit while
;;          it is taken; 0 where no block starts
;;      +4  size in granules of the block just before it in $heap; 0 for the first
;;      +8  live: its length in bytes
;;          free: the next block in its bin, as a granule number, or 0
;;     +12  taken: the block that was taken next, or 0
;;          free: the previous block in its bin, or 0
;;
;; Free blocks are linked in bins, two for each power of two, and there is a bit for each bin that
;; is not empty. To allocate, use the first block of the request's own bin if it is large enough,
;; else the first block of any later bin, else new space at the top. To free, merge with both
;; neighbours at once. All of this takes constant time, except `reset`, which visits each block once.
;;
;; A block that the host frees is taken. Many PDKs free it again, and that must not hit a block that
;; was made there since. So the first granule of a taken block stays allocated for a while: 1,024 of
;; them are kept; if there is no room, the last 4; and none if the limits require it.
;;
;; The first 16 granules hold no block: offset 0 stays the null handle. Where their records would be,
;; and in the 16 bytes before, $book keeps the heads of the bins, and then these numbers:
;;
;;     28888  offset of the input
;;     28896  its length
;;     28904  its length less 7, or 0: below are the offsets in it of 8 bytes
;;     28912  bytes of $heap
;;     28920  its bytes less 7: below are the offsets in it of 8 bytes
;;     28928  top: the first granule above all blocks
;;     28932  the size in granules of the block that ends at the top; 0 if there is none
;;     28936  the bins that are not empty, a bit each
;;
;; The last three are here so that the host can add a block at the top without entering Wasm
;; (`Kernel.push`), when that is what `alloc` would do.
;;
;; Most modules of plugins import both memories, and have the load and store functions inlined (see
;; inliner.wat, which must do the same as these functions).
(module $extism:host/env
  ;; Ask the host:
  ;;
  ;;   0       whether $heap may have $first pages. 0 means that growing is over; the top bit means
  ;;           that fewer pages would do.
  ;;   1       for a block with the setting whose key is the block $first. The key stays.
  ;;   2       to write the vars to $book at $first, $second bytes at most. The answer is where they
  ;;           end; 0 if the host keeps them.
  ;;   3 to 10 to serve var_get, var_set, get_log_level, log_trace, log_debug, log_info, log_warn,
  ;;           log_error.
  (import "host" "ask" (func $ask (param $first i64) (param $second i64) (param $what i32) (result i64)))

  (memory $heap (export "memory") 2)
  (memory $book (export "book") 2)
  (table $callee 1 funcref)
  (type $returns_code (func (result i32)))
  (type $returns_nothing (func))

  (global $end (mut i64) (i64.const 131072))   ;; bytes of $heap

  ;; Taken blocks: how many, the first, and the last.
  (global $taken (mut i32) (i32.const 0))
  (global $first_taken (mut i32) (i32.const 0))
  (global $last_taken (mut i32) (i32.const 0))
  (global $denied (mut i64) (i64.const 0))     ;; bytes of the last denied allocation in this call

  (global $output (mut i64) (i64.const 0))
  (global $output_length (mut i64) (i64.const 0))
  (global $error (mut i64) (i64.const 0))
  (global $error_length (mut i64) (i64.const 0))
  ;; Fault bits: 1 an error is set; 2 output_set, 4 error_set, 8 input_set got memory that is no live
  ;; block.
  (global $fault (mut i32) (i32.const 0))

  ;; ---- records and bins -------------------------------------------------------------------------

  (func $record (param $block i32) (result i32)
    (i32.add (i32.shl (local.get $block) (i32.const 4)) (i32.const 28688)))

  (func $size (param $block i32) (result i32)
    (i32.and (i32.load $book (call $record (local.get $block))) (i32.const 0x3fffffff)))

  (func $is_live (param $block i32) (result i32)
    (i32.shr_u (i32.load $book (call $record (local.get $block))) (i32.const 31)))

  (func $is_free (param $block i32) (result i32)
    (i32.lt_u (i32.load $book (call $record (local.get $block))) (i32.const 0x40000000)))

  (func $bin (param $size i32) (result i32)
    (local $log i32)
    (local.set $log (i32.sub (i32.const 31) (i32.clz (local.get $size))))
    (i32.or
      (i32.shl (local.get $log) (i32.const 1))
      (i32.and (i32.shr_u (i32.shl (local.get $size) (i32.const 1)) (local.get $log)) (i32.const 1))))

  ;; Return the first block of a bin, or 0. A head is valid only while the bin's bit is set, so that
  ;; one assignment empties all bins.
  (func $head (param $bin i32) (result i32)
    (if (result i32)
      (i32.wrap_i64 (i64.and (i64.shr_u (i64.load $book offset=28936 (i32.const 0)) (i64.extend_i32_u (local.get $bin))) (i64.const 1)))
      (then (i32.load $book offset=28672 (i32.shl (local.get $bin) (i32.const 2))))
      (else (i32.const 0))))

  (func $set_head (param $bin i32) (param $block i32)
    (local $bit i64)
    (local.set $bit (i64.shl (i64.const 1) (i64.extend_i32_u (local.get $bin))))
    (i32.store $book offset=28672 (i32.shl (local.get $bin) (i32.const 2)) (local.get $block))
    (i64.store $book offset=28936 (i32.const 0)
      (if (result i64) (local.get $block)
        (then (i64.or (i64.load $book offset=28936 (i32.const 0)) (local.get $bit)))
        (else (i64.and (i64.load $book offset=28936 (i32.const 0)) (i64.xor (local.get $bit) (i64.const -1)))))))

  (func $link_free (param $block i32) (param $size i32)
    (local $bin i32) (local $next i32) (local $record i32)
    (local.set $bin (call $bin (local.get $size)))
    (local.set $next (call $head (local.get $bin)))
    (local.set $record (call $record (local.get $block)))
    (i32.store $book (local.get $record) (local.get $size))
    (i32.store $book offset=8 (local.get $record) (local.get $next))
    (i32.store $book offset=12 (local.get $record) (i32.const 0))
    (if (local.get $next) (then (i32.store $book offset=12 (call $record (local.get $next)) (local.get $block))))
    (call $set_head (local.get $bin) (local.get $block)))

  (func $unlink_free (param $block i32)
    (local $next i32) (local $previous i32) (local $record i32)
    (local.set $record (call $record (local.get $block)))
    (local.set $next (i32.load $book offset=8 (local.get $record)))
    (local.set $previous (i32.load $book offset=12 (local.get $record)))
    (if (local.get $next)
      (then (i32.store $book offset=12 (call $record (local.get $next)) (local.get $previous))))
    (if (local.get $previous)
      (then (i32.store $book offset=8 (call $record (local.get $previous)) (local.get $next)))
      (else (call $set_head (call $bin (call $size (local.get $block))) (local.get $next)))))

  (func $make_live (param $block i32) (param $size i32) (param $length i64)
    (local $record i32)
    (local.set $record (call $record (local.get $block)))
    (i32.store $book (local.get $record) (i32.or (local.get $size) (i32.const 0x80000000)))
    (i32.store $book offset=8 (local.get $record) (i32.wrap_i64 (local.get $length))))

  (func $set_previous_size (param $block i32) (param $size i32)
    (if (i32.lt_u (local.get $block) (i32.load $book offset=28928 (i32.const 0)))
      (then (i32.store $book offset=4 (call $record (local.get $block)) (local.get $size)))
      (else (i32.store $book offset=28932 (i32.const 0) (local.get $size)))))

  ;; ---- growing ----------------------------------------------------------------------------------

  (func $granules (param $length i64) (result i32)
    (i32.wrap_i64 (i64.shr_u (i64.add (local.get $length) (i64.const 31)) (i64.const 5))))

  (func $may_grow (param $pages i32) (result i32)
    (i32.wrap_i64 (call $ask (i64.extend_i32_u (local.get $pages)) (i64.const 0) (i32.const 0))))

  (func $grow_to (param $pages i32) (param $wish i32) (result i32)
    (local $grown i32)
    (if (i32.gt_u (local.get $pages) (i32.const 65536)) (then (return (i32.const 0))))
    (if (i32.eqz (call $may_grow (i32.or (local.get $pages) (local.get $wish)))) (then (return (i32.const 0))))
    (local.set $grown (call $grow_granted (local.get $pages)))
    (drop (call $may_grow (i32.const 0)))
    (local.get $grown))

  (func $grow_granted (param $pages i32) (result i32)
    (local $book_pages i32)
    (local.set $book_pages
      (i32.sub (i32.shr_u (i32.add (local.get $pages) (i32.const 3)) (i32.const 1)) (memory.size $book)))
    (if (i32.gt_s (local.get $book_pages) (i32.const 0))
      (then (if (i32.eq (memory.grow $book (local.get $book_pages)) (i32.const -1)) (then (return (i32.const 0))))))
    (if (i32.eq (memory.grow $heap (i32.sub (local.get $pages) (memory.size $heap))) (i32.const -1))
      (then (return (i32.const 0))))
    (global.set $end (i64.shl (i64.extend_i32_u (local.get $pages)) (i64.const 16)))
    (call $note_end)
    (i32.const 1))

  (func $note_end
    (i64.store $book offset=28912 (i32.const 0) (global.get $end))
    (i64.store $book offset=28920 (i32.const 0) (i64.sub (global.get $end) (i64.const 7))))
  (func $begin_heap
    (i32.store $book offset=28928 (i32.const 0) (i32.const 16))
    (call $note_end))
  (start $begin_heap)

  ;; Make room up to the granule $need, with a quarter to spare if that is granted. Return 1 if it
  ;; worked.
  (func $ensure (param $need i64) (result i32)
    (local $pages i32) (local $roomy i32)
    (if (i64.le_u (i64.shl (local.get $need) (i64.const 5)) (global.get $end)) (then (return (i32.const 1))))
    (if (i64.gt_u (local.get $need) (i64.const 0x8000000)) (then (return (i32.const 0))))
    (local.set $pages (i32.wrap_i64 (i64.shr_u (i64.add (local.get $need) (i64.const 2047)) (i64.const 11))))
    (local.set $roomy (i32.add (memory.size $heap) (i32.shr_u (memory.size $heap) (i32.const 2))))
    (if (i32.gt_u (local.get $roomy) (local.get $pages))
      (then (if (call $grow_to (local.get $roomy) (i32.const 0x80000000)) (then (return (i32.const 1))))))
    (call $grow_to (local.get $pages) (i32.const 0)))

  ;; ---- blocks -----------------------------------------------------------------------------------

  (func $alloc (export "alloc") (param $length i64) (result i64)
    (local $size i32) (local $bin i32) (local $block i32) (local $found i32) (local $rest i32) (local $later i64)
    (if (i64.eqz (local.get $length)) (then (return (i64.const 0))))
    (if (i64.gt_u (local.get $length) (i64.const 0xffff0000))
      (then (global.set $denied (local.get $length)) (return (i64.const 0))))
    (local.set $size (call $granules (local.get $length)))
    (local.set $bin (call $bin (local.get $size)))
    (loop $again
      (local.set $block (call $head (local.get $bin)))
      (if (i32.and (i32.ne (local.get $block) (i32.const 0)) (i32.lt_u (call $size (local.get $block)) (local.get $size)))
        (then (local.set $block (i32.const 0))))
      (if (i32.eqz (local.get $block))
        (then
          (local.set $later
            (i64.and (i64.load $book offset=28936 (i32.const 0)) (i64.shl (i64.const -2) (i64.extend_i32_u (local.get $bin)))))
          (if (i64.ne (local.get $later) (i64.const 0))
            (then (local.set $block (call $head (i32.wrap_i64 (i64.ctz (local.get $later)))))))))
      (if (local.get $block)
        (then
          (local.set $found (call $size (local.get $block)))
          (call $unlink_free (local.get $block))
          (call $make_live (local.get $block) (local.get $size) (local.get $length))
          (local.set $rest (i32.sub (local.get $found) (local.get $size)))
          (if (local.get $rest)
            (then
              (call $set_previous_size (i32.add (local.get $block) (local.get $found)) (local.get $rest))
              (local.set $found (i32.add (local.get $block) (local.get $size)))
              (call $set_previous_size (local.get $found) (local.get $size))
              (call $link_free (local.get $found) (local.get $rest)))))
        (else
          (local.set $block (i32.load $book offset=28928 (i32.const 0)))
          (if (i64.gt_u
                (i64.shl (i64.add (i64.extend_i32_u (local.get $block)) (i64.extend_i32_u (local.get $size))) (i64.const 5))
                (global.get $end))
            (then
              (br_if $again (call $make_room (local.get $size)))
              (global.set $denied (local.get $length))
              (return (i64.const 0))))
          (call $push (local.get $size) (local.get $length)))))
    (i64.shl (i64.extend_i32_u (local.get $block)) (i64.const 5)))

  ;; Make room for a block of that size by one step: free taken blocks, or grow. Return 0 if no step
  ;; is left.
  (func $make_room (param $size i32) (result i32)
    (if (i32.gt_u (global.get $taken) (i32.const 4))
      (then (call $release_taken (i32.const 4)) (return (i32.const 1))))
    (if (call $ensure (i64.add (i64.extend_i32_u (i32.load $book offset=28928 (i32.const 0))) (i64.extend_i32_u (local.get $size))))
      (then (return (i32.const 1))))
    (if (i32.eqz (global.get $taken)) (then (return (i32.const 0))))
    (call $release_taken (i32.const 0))
    (i32.const 1))

  ;; Add a live block at $top, where there must be room for it.
  (func $push (param $size i32) (param $length i64)
    (call $make_live (i32.load $book offset=28928 (i32.const 0)) (local.get $size) (local.get $length))
    (i32.store $book offset=4 (call $record (i32.load $book offset=28928 (i32.const 0))) (i32.load $book offset=28932 (i32.const 0)))
    (i32.store $book offset=28932 (i32.const 0) (local.get $size))
    (i32.store $book offset=28928 (i32.const 0) (i32.add (i32.load $book offset=28928 (i32.const 0)) (local.get $size))))

  ;; Return the granule number of the live block that starts at the offset, or 0.
  (func $block_at (param $offset i64) (result i32)
    (local $block i32)
    (if (i64.ne (i64.and (local.get $offset) (i64.const 31)) (i64.const 0)) (then (return (i32.const 0))))
    (if (i64.ge_u (local.get $offset) (i64.shl (i64.extend_i32_u (i32.load $book offset=28928 (i32.const 0))) (i64.const 5)))
      (then (return (i32.const 0))))
    (local.set $block (i32.wrap_i64 (i64.shr_u (local.get $offset) (i64.const 5))))
    (if (i32.lt_u (local.get $block) (i32.const 16)) (then (return (i32.const 0))))
    (select (local.get $block) (i32.const 0) (call $is_live (local.get $block))))

  (func $length (export "length") (param $offset i64) (result i64)
    (local $block i32)
    (local.set $block (call $block_at (local.get $offset)))
    (if (result i64) (local.get $block)
      (then (i64.load32_u $book offset=8 (call $record (local.get $block))))
      (else (i64.const 0))))

  (func (export "length_unsafe") (param $offset i64) (result i64)
    (call $length (local.get $offset)))

  (func (export "free") (param $offset i64)
    (local $block i32)
    (local.set $block (call $block_at (local.get $offset)))
    (if (local.get $block) (then (call $release (local.get $block)))))

  ;; Free a block that is live or taken.
  (func $release (param $block i32)
    (local $size i32) (local $next i32) (local $previous i32)
    (local.set $size (call $size (local.get $block)))
    (local.set $next (i32.add (local.get $block) (local.get $size)))
    (if (i32.lt_u (local.get $next) (i32.load $book offset=28928 (i32.const 0)))
      (then (if (call $is_free (local.get $next))
        (then
          (call $unlink_free (local.get $next))
          (local.set $size (i32.add (local.get $size) (call $size (local.get $next))))
          (i32.store $book (call $record (local.get $next)) (i32.const 0))))))
    (local.set $previous (i32.load $book offset=4 (call $record (local.get $block))))
    (if (local.get $previous)
      (then
        (local.set $next (i32.sub (local.get $block) (local.get $previous)))
        (if (call $is_free (local.get $next))
          (then
            (call $unlink_free (local.get $next))
            (i32.store $book (call $record (local.get $block)) (i32.const 0))
            (local.set $size (i32.add (local.get $size) (local.get $previous)))
            (local.set $block (local.get $next))))))
    (if (i32.eq (i32.add (local.get $block) (local.get $size)) (i32.load $book offset=28928 (i32.const 0)))
      (then
        (i32.store $book offset=28928 (i32.const 0) (local.get $block))
        (i32.store $book offset=28932 (i32.const 0) (i32.load $book offset=4 (call $record (local.get $block))))
        (i32.store $book (call $record (local.get $block)) (i32.const 0)))
      (else
        (call $set_previous_size (i32.add (local.get $block) (local.get $size)) (local.get $size))
        (call $link_free (local.get $block) (local.get $size)))))

  ;; Free a block that the guest gave to the host, except for its first granule.
  (func $take (export "take") (param $offset i64)
    (local $block i32) (local $record i32) (local $rest i32) (local $tail i32)
    (local.set $block (call $block_at (local.get $offset)))
    (if (i32.eqz (local.get $block)) (then (return)))
    (local.set $record (call $record (local.get $block)))
    (local.set $rest (i32.sub (call $size (local.get $block)) (i32.const 1)))
    (i32.store $book (local.get $record) (i32.const 0x40000001))
    (i32.store $book offset=12 (local.get $record) (i32.const 0))
    (if (local.get $rest)
      (then
        (local.set $tail (i32.add (local.get $block) (i32.const 1)))
        (i32.store $book (call $record (local.get $tail)) (local.get $rest))
        (i32.store $book offset=4 (call $record (local.get $tail)) (i32.const 1))
        (call $release (local.get $tail))))
    (if (global.get $taken)
      (then (i32.store $book offset=12 (call $record (global.get $last_taken)) (local.get $block)))
      (else (global.set $first_taken (local.get $block))))
    (global.set $last_taken (local.get $block))
    (global.set $taken (i32.add (global.get $taken) (i32.const 1)))
    (if (i32.gt_u (global.get $taken) (i32.const 1024)) (then (call $release_taken (i32.const 1024)))))

  ;; Free the blocks that were taken first. The last $kept stay.
  (func $release_taken (param $kept i32)
    (local $block i32)
    (block $done
      (loop $next
        (br_if $done (i32.le_u (global.get $taken) (local.get $kept)))
        (local.set $block (global.get $first_taken))
        (global.set $first_taken (i32.load $book offset=12 (call $record (local.get $block))))
        (global.set $taken (i32.sub (global.get $taken) (i32.const 1)))
        (call $release (local.get $block))
        (br $next))))

  (func $reset (export "reset")
    (local $block i32) (local $size i32)
    (local.set $block (i32.const 16))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $block) (i32.load $book offset=28928 (i32.const 0))))
        (local.set $size (call $size (local.get $block)))
        (i32.store $book (call $record (local.get $block)) (i32.const 0))
        (local.set $block (i32.add (local.get $block) (local.get $size)))
        (br $next)))
    (i32.store $book offset=28928 (i32.const 0) (i32.const 16))
    (i32.store $book offset=28932 (i32.const 0) (i32.const 0))
    (i64.store $book offset=28936 (i32.const 0) (i64.const 0))
    (global.set $taken (i32.const 0))
    (global.set $denied (i64.const 0))
    (call $set_input (i64.const 0) (i64.const 0))
    (global.set $output (i64.const 0))
    (global.set $output_length (i64.const 0))
    (global.set $error (i64.const 0))
    (global.set $error_length (i64.const 0))
    (global.set $fault (i32.const 0)))

  ;; Return 1 if the range lies inside one live block. The start of a block is found at once, an
  ;; inner offset by visiting the blocks.
  (func $is_owned (param $offset i64) (param $length i64) (result i32)
    (local $block i32) (local $start i64)
    (local.set $block (call $block_at (local.get $offset)))
    (if (local.get $block)
      (then (return (i64.le_u (local.get $length) (call $length (local.get $offset))))))
    (local.set $block (i32.const 16))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $block) (i32.load $book offset=28928 (i32.const 0))))
        (local.set $start (i64.shl (i64.extend_i32_u (local.get $block)) (i64.const 5)))
        (br_if $done (i64.gt_u (local.get $start) (local.get $offset)))
        (if (i64.lt_u (local.get $offset) (i64.add (local.get $start) (call $length (local.get $start))))
          (then (return (i64.le_u (local.get $length)
            (i64.sub (i64.add (local.get $start) (call $length (local.get $start))) (local.get $offset))))))
        (local.set $block (i32.add (local.get $block) (call $size (local.get $block))))
        (br $next)))
    (i32.const 0))

  ;; ---- memory -----------------------------------------------------------------------------------

  (func (export "load_u8") (param $offset i64) (result i32)
    (if (i64.ge_u (local.get $offset) (global.get $end)) (then (return (i32.const 0))))
    (i32.load8_u $heap (i32.wrap_i64 (local.get $offset))))

  (func (export "load_u64") (param $offset i64) (result i64)
    (if (i64.gt_u (local.get $offset) (i64.sub (global.get $end) (i64.const 8))) (then (return (i64.const 0))))
    (i64.load $heap (i32.wrap_i64 (local.get $offset))))

  (func (export "store_u8") (param $offset i64) (param $value i32)
    (if (i64.ge_u (local.get $offset) (global.get $end)) (then (return)))
    (i32.store8 $heap (i32.wrap_i64 (local.get $offset)) (local.get $value)))

  (func (export "store_u64") (param $offset i64) (param $value i64)
    (if (i64.gt_u (local.get $offset) (i64.sub (global.get $end) (i64.const 8))) (then (return)))
    (i64.store $heap (i32.wrap_i64 (local.get $offset)) (local.get $value)))

  (func (export "memory_bytes") (result i64) (global.get $end))

  ;; ---- input, output, error ---------------------------------------------------------------------

  (func $input (result i64) (i64.load $book offset=28888 (i32.const 0)))
  (func $input_length (result i64) (i64.load $book offset=28896 (i32.const 0)))
  (func $set_input (param $offset i64) (param $length i64)
    (i64.store $book offset=28888 (i32.const 0) (local.get $offset))
    (i64.store $book offset=28896 (i32.const 0) (local.get $length))
    (i64.store $book offset=28904 (i32.const 0)
      (select (i64.sub (local.get $length) (i64.const 7)) (i64.const 0) (i64.gt_u (local.get $length) (i64.const 7)))))

  (func (export "input_load_u8") (param $index i64) (result i32)
    (if (i64.ge_u (local.get $index) (i64.load $book offset=28896 (i32.const 0))) (then (return (i32.const 0))))
    (i32.load8_u $heap (i32.wrap_i64 (i64.add (i64.load $book offset=28888 (i32.const 0)) (local.get $index)))))

  (func (export "input_load_u64") (param $index i64) (result i64)
    (if (i64.ge_u (local.get $index) (i64.load $book offset=28904 (i32.const 0))) (then (return (i64.const 0))))
    (i64.load $heap (i32.wrap_i64 (i64.add (i64.load $book offset=28888 (i32.const 0)) (local.get $index)))))

  (func (export "input_set") (param $offset i64) (param $length i64)
    (if (i64.eqz (local.get $length)) (then (local.set $offset (i64.const 0)))
      (else (if (i32.eqz (call $is_owned (local.get $offset) (local.get $length)))
        (then (global.set $fault (i32.or (global.get $fault) (i32.const 8))) (return)))))
    (call $set_input (local.get $offset) (local.get $length)))

  (func (export "input_length") (result i64) (call $input_length))
  (func (export "input_offset") (result i64) (call $input))

  (func (export "output_set") (param $offset i64) (param $length i64)
    (global.set $fault (i32.and (global.get $fault) (i32.const -3)))
    (if (i64.eqz (local.get $length)) (then (local.set $offset (i64.const 0)))
      (else (if (i32.eqz (call $is_owned (local.get $offset) (local.get $length)))
        (then (global.set $fault (i32.or (global.get $fault) (i32.const 2)))))))
    (global.set $output (local.get $offset))
    (global.set $output_length (local.get $length)))

  (func (export "output_length") (result i64) (global.get $output_length))
  (func (export "output_offset") (result i64) (global.get $output))

  (func (export "error_set") (param $offset i64)
    (global.set $error (local.get $offset))
    (global.set $error_length (call $length (local.get $offset)))
    (global.set $fault (i32.and (global.get $fault) (i32.const -6)))
    (if (i64.ne (local.get $offset) (i64.const 0))
      (then (global.set $fault (i32.or (global.get $fault)
        (select (i32.const 1) (i32.const 4) (i64.ne (global.get $error_length) (i64.const 0))))))))

  (func (export "error_get") (result i64) (global.get $error))

  ;; ---- for the host -----------------------------------------------------------------------------

  ;; Return 1 if the input area, which starts at the first block, has room for so many bytes, or can
  ;; be given it.
  (func (export "reserve") (param $length i64) (result i32)
    (if (i64.gt_u (local.get $length) (i64.const 0xffff0000)) (then (return (i32.const 0))))
    (call $ensure (i64.add (i64.const 16) (i64.extend_i32_u (call $granules (local.get $length))))))

  ;; Reset everything, and make the input, which the host has written already, the first block.
  (func $begin (param $length i64)
    (call $reset)
    (if (i64.eqz (local.get $length)) (then (return)))
    (if (i64.gt_u (i64.add (local.get $length) (i64.const 512)) (global.get $end)) (then (unreachable)))
    (call $push (call $granules (local.get $length)) (local.get $length))
    (call $set_input (i64.const 512) (local.get $length)))

  ;; Combine what the guest returned, in the lower half, and $fault, in the upper half. 0 is success.
  (func $status (param $code i32) (result i64)
    (i64.or (i64.extend_i32_u (local.get $code)) (i64.shl (i64.extend_i32_u (global.get $fault)) (i64.const 32))))

  ;; Call an export of a plugin. Return status, and offset and length of the output.
  (func (export "call_returning_code") (param $function funcref) (param $input_length i64) (result i64 i64 i64)
    (call $begin (local.get $input_length))
    (table.set $callee (i32.const 0) (local.get $function))
    (call $status (call_indirect $callee (type $returns_code) (i32.const 0)))
    (global.get $output)
    (global.get $output_length))

  (func (export "call_returning_nothing") (param $function funcref) (param $input_length i64) (result i64 i64 i64)
    (call $begin (local.get $input_length))
    (table.set $callee (i32.const 0) (local.get $function))
    (call_indirect $callee (type $returns_nothing) (i32.const 0))
    (call $status (i32.const 0))
    (global.get $output)
    (global.get $output_length))

  ;; Return, after a failed call: $fault, offset and length of the error, offset and length of the
  ;; output, $denied.
  (func (export "failure") (result i64 i64 i64 i64 i64 i64)
    (i64.extend_i32_u (global.get $fault))
    (global.get $error) (global.get $error_length)
    (global.get $output) (global.get $output_length)
    (global.get $denied))
)
