;; The inliner: replaces calls of the kernel's load and store functions, in the module of a plugin, by
;; what these functions do.
;;
;; It reads a module in $in and writes another one to $out, which imports the kernel's two memories
;; besides. An imported memory comes before those that a module defines, so all instructions with a
;; memory of the module's own get another index. Function indexes stay as they are.
;;
;; The module need not be valid. Whatever is not listed below is `unreachable`, and what is read or
;; written beyond the end of a memory traps: such a module is used as it is. Each instruction that is
;; read is at least a byte, so the time is linear.
(module $inliner
  (memory $in (export "in") 1)
  (memory $out (export "out") 1)

  ;; Tables, and what the host passes:
  ;;       0  what follows an opcode, a byte each: see $body
  ;;     256  templates, each up to 0xcf; 0xc8 + n stands for the number in slot n
  ;;     768  where the templates of the functions 1 to 6 start, four bytes each
  ;;     800  slots: the three new locals; the heap and the book
  ;;     832  the imports of the two memories
  ;;    1024  offsets in $out, ascending, four bytes each, the last -1
  ;;   33792  for each of these, the offset in $in of the instruction there
  ;;   65536  for each imported function a byte: 0, or the number of a kernel function
  ;;  131072  how many parameters each type has, four bytes each
  (memory $tables (export "tables") 6)

  ;;                          0       1       2       3       4       5       6       7
  ;; what follows:      nothing  number  memarg  4 bytes 8 bytes  block  labels    call
  ;;                          8       9      10      11      12      13      14
  ;;                2 numbers   select  0xfc    0xfd    0xfe   memory  unknown
  (data (memory $tables) (i32.const 0)
    "\00\00\05\05\05\00\0e\0e\01\0e\00\00\01\01\06\00"  ;; 00: unreachable … return
    "\07\08\01\08\01\01\0e\0e\0e\0e\00\00\09\0e\0e\0e"  ;; 10: call … select
    "\01\01\01\01\01\01\01\0e\02\02\02\02\02\02\02\02"  ;; 20: local.get … table.set, loads
    "\02\02\02\02\02\02\02\02\02\02\02\02\02\02\02\0d"  ;; 30: loads, stores, memory.size
    "\0d\01\01\03\04\00\00\00\00\00\00\00\00\00\00\00"  ;; 40: memory.grow, constants, numeric
    "\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00"
    "\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00"
    "\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00"
    "\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00"
    "\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00"
    "\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00"
    "\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00"
    "\00\00\00\00\00\0e\0e\0e\0e\0e\0e\0e\0e\0e\0e\0e"  ;; c0: sign extension
    "\01\00\01\00\00\01\01\0e\0e\0e\0e\0e\0e\0e\0e\0e"  ;; d0: references
    "\0e\0e\0e\0e\0e\0e\0e\0e\0e\0e\0e\0e\0e\0e\0e\0e"
    "\0e\0e\0e\0e\0e\0e\0e\0e\0e\0e\0e\0e\0a\0b\0c\0e") ;; f0: prefixes

  ;; load_u8: local.tee 0; i32.const 0; i64.load book offset=28912; i64.lt_u
  ;; if (result i32) local.get 0; i32.wrap_i64; i32.load8_u heap else i32.const 0 end
  (data (memory $tables) (i32.const 256)
    "\22\c8\41\00\29\40\cc\f0\e1\01\54"
    "\04\7f\20\c8\a7\2d\40\cb\00\05\41\00\0b\cf")
  ;; load_u64: … i64.load book offset=28920 … if (result i64) … i64.load heap else i64.const 0 end
  (data (memory $tables) (i32.const 320)
    "\22\c8\41\00\29\40\cc\f8\e1\01\54"
    "\04\7e\20\c8\a7\29\40\cb\00\05\42\00\0b\cf")
  ;; store_u8: local.set 2; local.tee 0; … if local.get 0; i32.wrap_i64; local.get 2; i32.store8 heap end
  (data (memory $tables) (i32.const 384)
    "\21\ca\22\c8\41\00\29\40\cc\f0\e1\01\54"
    "\04\40\20\c8\a7\20\ca\3a\40\cb\00\0b\cf")
  ;; store_u64: local.set 1; local.tee 0; … if local.get 0; i32.wrap_i64; local.get 1; i64.store heap end
  (data (memory $tables) (i32.const 448)
    "\21\c9\22\c8\41\00\29\40\cc\f8\e1\01\54"
    "\04\40\20\c8\a7\20\c9\37\40\cb\00\0b\cf")
  ;; input_load_u8: local.tee 0; i32.const 0; i64.load book offset=28896; i64.lt_u
  ;; if (result i32) i32.const 0; i64.load book offset=28888; local.get 0; i64.add; i32.wrap_i64
  ;; i32.load8_u heap else i32.const 0 end
  (data (memory $tables) (i32.const 512)
    "\22\c8\41\00\29\40\cc\e0\e1\01\54"
    "\04\7f\41\00\29\40\cc\d8\e1\01\20\c8\7c\a7\2d\40\cb\00\05\41\00\0b\cf")
  ;; input_load_u64: … i64.load book offset=28904 … if (result i64) … i64.load heap else i64.const 0 end
  (data (memory $tables) (i32.const 576)
    "\22\c8\41\00\29\40\cc\e8\e1\01\54"
    "\04\7e\41\00\29\40\cc\d8\e1\01\20\c8\7c\a7\29\40\cb\00\05\42\00\0b\cf")
  (data (memory $tables) (i32.const 768)
    "\00\01\00\00\40\01\00\00\80\01\00\00\c0\01\00\00\00\02\00\00\40\02\00\00")
  (data (memory $tables) (i32.const 832)
    "\0fplugwasm:kernel\06memory\02\00\02\0fplugwasm:kernel\04book\02\00\02")

  ;; The module's own imports come first: so many memories, and so many functions.
  (global $memories (mut i32) (i32.const 0))
  (global $functions (mut i32) (i32.const 0))
  (global $sites (mut i32) (i32.const 0))       ;; calls replaced so far
  (global $calls (mut i32) (i32.const 0))       ;; calls in this function that could be replaced
  (global $types (mut i32) (i32.const 0))       ;; where the next function has its type, in $in
  (global $target (mut i32) (i32.const 1024))   ;; the next offset to look for, in $tables
  (global $last (mut i32) (i32.const 0))        ;; where the last instruction starts, in $in
  (global $if (mut i32) (i32.const 0))          ;; where the last template has its `if`, in $out

  ;; ---- numbers and copies -----------------------------------------------------------------------

  ;; Read a LEB128 number of 32 bits. Return it, and where the next byte is.
  (func $number (param $at i32) (result i32 i32)
    (local $byte i32) (local $value i32) (local $shift i32)
    (loop $next
      (if (i32.gt_u (local.get $shift) (i32.const 28)) (then (unreachable)))
      (local.set $byte (i32.load8_u $in (local.get $at)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (local.set $value (i32.or (local.get $value)
        (i32.shl (i32.and (local.get $byte) (i32.const 127)) (local.get $shift))))
      (local.set $shift (i32.add (local.get $shift) (i32.const 7)))
      (br_if $next (i32.gt_u (local.get $byte) (i32.const 127))))
    (local.get $value) (local.get $at))

  ;; Return where the LEB128 number ends that starts there.
  (func $skip (param $at i32) (result i32)
    (local $byte i32)
    (loop $next
      (local.set $byte (i32.load8_u $in (local.get $at)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.gt_u (local.get $byte) (i32.const 127))))
    (local.get $at))

  (func $put_number (param $to i32) (param $value i32) (result i32)
    (loop $next
      (if (i32.gt_u (local.get $value) (i32.const 127))
        (then
          (i32.store8 $out (local.get $to) (i32.or (local.get $value) (i32.const 128)))
          (local.set $to (i32.add (local.get $to) (i32.const 1)))
          (local.set $value (i32.shr_u (local.get $value) (i32.const 7)))
          (br $next))))
    (i32.store8 $out (local.get $to) (local.get $value))
    (i32.add (local.get $to) (i32.const 1)))

  ;; Write a size as a number of five bytes, so that its place can be kept free.
  (func $put_size (param $to i32) (param $size i32)
    (i32.store8 $out (local.get $to) (i32.or (local.get $size) (i32.const 128)))
    (i32.store8 $out offset=1 (local.get $to) (i32.or (i32.shr_u (local.get $size) (i32.const 7)) (i32.const 128)))
    (i32.store8 $out offset=2 (local.get $to) (i32.or (i32.shr_u (local.get $size) (i32.const 14)) (i32.const 128)))
    (i32.store8 $out offset=3 (local.get $to) (i32.or (i32.shr_u (local.get $size) (i32.const 21)) (i32.const 128)))
    (i32.store8 $out offset=4 (local.get $to) (i32.shr_u (local.get $size) (i32.const 28))))

  ;; Copy a few bytes, eight at a time: what is written too much is overwritten later.
  (func $copy (param $from i32) (param $end i32) (param $to i32) (result i32)
    (local $after i32)
    (local.set $after (i32.add (local.get $to) (i32.sub (local.get $end) (local.get $from))))
    (loop $next
      (if (i32.lt_u (local.get $from) (local.get $end))
        (then
          (i64.store $out (local.get $to) (i64.load $in (local.get $from)))
          (local.set $from (i32.add (local.get $from) (i32.const 8)))
          (local.set $to (i32.add (local.get $to) (i32.const 8)))
          (br $next))))
    (local.get $after))

  (func $copy_section (param $from i32) (param $end i32) (param $to i32) (result i32)
    (memory.copy $out $in (local.get $to) (local.get $from) (i32.sub (local.get $end) (local.get $from)))
    (i32.add (local.get $to) (i32.sub (local.get $end) (local.get $from))))

  ;; ---- what changes -----------------------------------------------------------------------------
  ;;
  ;; These read at $at, and have copied what is before $from. They return the new $at, $from and $to.

  (func $move_memory (param $at i32) (param $from i32) (param $to i32) (result i32 i32 i32)
    (local $index i32) (local $after i32)
    (call $number (local.get $at))
    (local.set $after)
    (local.set $index)
    (if (i32.ge_u (local.get $index) (global.get $memories))
      (then
        (local.set $to (call $copy (local.get $from) (local.get $at) (local.get $to)))
        (local.set $to (call $put_number (local.get $to) (i32.add (local.get $index) (i32.const 2))))
        (local.set $from (local.get $after))))
    (local.get $after) (local.get $from) (local.get $to))

  ;; Alignment, the memory's index if bit 6 is set there, offset.
  (func $move_memarg (param $at i32) (param $from i32) (param $to i32) (result i32 i32 i32)
    (local $flags i32)
    (local.set $flags (i32.load8_u $in (local.get $at)))
    (if (i32.gt_u (local.get $flags) (i32.const 127)) (then (unreachable)))
    (if (i32.and (local.get $flags) (i32.const 64))
      (then
        (call $move_memory (i32.add (local.get $at) (i32.const 1)) (local.get $from) (local.get $to))
        (local.set $to)
        (local.set $from)
        (local.set $at))
      (else
        (if (i32.eqz (global.get $memories))
          (then
            (local.set $to (call $copy (local.get $from) (local.get $at) (local.get $to)))
            (i32.store16 $out (local.get $to) (i32.or (local.get $flags) (i32.const 0x240)))
            (local.set $to (i32.add (local.get $to) (i32.const 2)))
            (local.set $from (i32.add (local.get $at) (i32.const 1)))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))))
    (call $skip (local.get $at)) (local.get $from) (local.get $to))

  (func $put_template (param $function i32) (param $to i32) (result i32)
    (local $at i32) (local $byte i32)
    (local.set $at (i32.load $tables offset=764 (i32.shl (local.get $function) (i32.const 2))))
    (loop $next
      (local.set $byte (i32.load8_u $tables (local.get $at)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (if (i32.ne (i32.and (local.get $byte) (i32.const 0xf8)) (i32.const 0xc8))
        (then
          (i32.store8 $out (local.get $to) (local.get $byte))
          (local.set $to (i32.add (local.get $to) (i32.const 1)))
          (if (i32.eq (local.get $byte) (i32.const 0x54)) (then (global.set $if (local.get $to)))) ;; i64.lt_u
          (br $next)))
      (if (i32.ne (local.get $byte) (i32.const 0xcf))
        (then
          (local.set $to (call $put_number (local.get $to)
            (i32.load $tables offset=800 (i32.shl (i32.and (local.get $byte) (i32.const 7)) (i32.const 2)))))
          (br $next))))
    (local.get $to))

  ;; Return where the next instruction but `nop` is, if that is `unreachable`; else $last. The engine
  ;; takes a template's `if` for the place of an `unreachable` behind it, and nothing of a template
  ;; traps.
  (func $unreachable_or_last (param $at i32) (result i32)
    (local $opcode i32)
    (loop $next
      (local.set $opcode (i32.load8_u $in (local.get $at)))
      (if (i32.eq (local.get $opcode) (i32.const 1)) ;; nop
        (then
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $next))))
    (select (global.get $last) (local.get $at) (local.get $opcode)))

  ;; Note for all offsets below $position that they are in the last instruction.
  (func $find (param $position i32)
    (loop $next
      (if (i32.gt_u (local.get $position) (i32.load $tables (global.get $target)))
        (then
          (i32.store $tables offset=32768 (global.get $target) (global.get $last))
          (global.set $target (i32.add (global.get $target) (i32.const 4)))
          (br $next)))))

  ;; ---- functions --------------------------------------------------------------------------------

  ;; Read a value type of one byte.
  (func $value_type (param $at i32) (result i32)
    (local $type i32)
    (local.set $type (i32.load8_u $in (local.get $at)))
    (if (i32.or (i32.lt_u (local.get $type) (i32.const 0x6f)) (i32.gt_u (local.get $type) (i32.const 0x7f)))
      (then (unreachable)))
    (i32.add (local.get $at) (i32.const 1)))

  (func $value_types (param $at i32) (param $count i32) (result i32)
    (loop $next
      (if (local.get $count)
        (then
          (local.set $at (call $value_type (local.get $at)))
          (local.set $count (i32.sub (local.get $count) (i32.const 1)))
          (br $next))))
    (local.get $at))

  (func $skip_all (param $at i32) (param $count i32) (result i32)
    (loop $next
      (if (local.get $count)
        (then
          (local.set $at (call $skip (local.get $at)))
          (local.set $count (i32.sub (local.get $count) (i32.const 1)))
          (br $next))))
    (local.get $at))

  ;; Read the groups of locals. If there is to be room for a replaced call, write them with three
  ;; locals more. Return where the first instruction is, and $to. The engine takes the last group for
  ;; the place of an `unreachable` that a function begins with; the added groups count as that one.
  (func $locals (param $at i32) (param $params i32) (param $roomy i32) (param $to i32) (result i32 i32)
    (local $groups i32) (local $start i32) (local $left i32) (local $count i32) (local $locals i32)
    (local $shift i32)
    (local.set $shift (i32.sub (local.get $to) (local.get $at)))
    (call $number (local.get $at))
    (local.set $start)
    (local.set $groups)
    (local.set $locals (local.get $params))
    (local.set $at (local.get $start))
    (local.set $left (local.get $groups))
    (if (local.get $roomy)
      (then
        (local.set $to (call $put_number (local.get $to) (i32.add (local.get $groups) (i32.const 2))))
        (local.set $shift (i32.sub (local.get $to) (local.get $at)))))
    (loop $next
      (if (local.get $left)
        (then
          (call $find (i32.add (local.get $at) (local.get $shift)))
          (global.set $last (local.get $at))
          (call $number (local.get $at))
          (local.set $at)
          (local.set $count)
          (local.set $at (call $value_type (local.get $at)))
          (if (i32.gt_u (local.get $count) (i32.const 50000)) (then (unreachable)))
          (local.set $locals (i32.add (local.get $locals) (local.get $count)))
          (if (i32.gt_u (local.get $locals) (i32.const 50000)) (then (unreachable)))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br $next))))
    (if (local.get $roomy)
      (then
        (local.set $to (call $copy (local.get $start) (local.get $at) (local.get $to)))
        (i32.store $out (local.get $to) (i32.const 0x7f017e02)) ;; two of i64, one of i32
        (local.set $to (i32.add (local.get $to) (i32.const 4)))
        (i32.store $tables offset=800 (i32.const 0) (local.get $locals))
        (i32.store $tables offset=804 (i32.const 0) (i32.add (local.get $locals) (i32.const 1)))
        (i32.store $tables offset=808 (i32.const 0) (i32.add (local.get $locals) (i32.const 2)))))
    (local.get $at) (local.get $to))

  ;; Write a function's locals and instructions. If $roomy is 0, count the calls that could be
  ;; replaced, and return 0 if there are some, else $to. If it is 1, replace them. Of more than 16, only
  ;; those of 8 bytes are: each makes the function larger, and its other loops slower.
  (func $body (param $at i32) (param $end i32) (param $params i32) (param $roomy i32) (param $to i32) (result i32)
    (local $from i32) (local $opcode i32) (local $index i32) (local $after i32) (local $position i32)
    (local.set $from (local.get $at))
    ;; Offsets of a function's entry are those of its locals.
    (call $find (local.get $to))
    (global.set $last (local.get $at))
    (call $locals (local.get $at) (local.get $params) (local.get $roomy) (local.get $to))
    (local.set $to)
    (local.set $at)
    (if (local.get $roomy) (then (local.set $from (local.get $at))))
    (block $done
      (loop $next
        (local.set $position (i32.add (local.get $to) (i32.sub (local.get $at) (local.get $from))))
        (if (i32.gt_u (local.get $position) (i32.load $tables (global.get $target)))
          (then (call $find (local.get $position))))
        (global.set $last (local.get $at))
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $opcode (i32.load8_u $in (local.get $at)))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (block $unknown
          (block $memory
            (block $atomic
              (block $vector
                (block $bulk
                  (block $select
                    (block $numbers
                      (block $call
                        (block $labels
                          (block $block
                            (block $bytes8
                              (block $bytes4
                                (block $memarg
                                  (block $number
                                    (br_table $next $number $memarg $bytes4 $bytes8 $block $labels $call
                                      $numbers $select $bulk $vector $atomic $memory $unknown
                                      (i32.load8_u $tables (local.get $opcode))))
                                  ;; $number
                                  (local.set $at (call $skip (local.get $at)))
                                  (br $next))
                                ;; $memarg
                                (call $move_memarg (local.get $at) (local.get $from) (local.get $to))
                                (local.set $to)
                                (local.set $from)
                                (local.set $at)
                                (br $next))
                              ;; $bytes4
                              (local.set $at (i32.add (local.get $at) (i32.const 4)))
                              (br $next))
                            ;; $bytes8
                            (local.set $at (i32.add (local.get $at) (i32.const 8)))
                            (br $next))
                          ;; $block: nothing, a value type, or a number; no type of two bytes
                          (br_if $unknown (i32.eq
                            (i32.and (i32.add (i32.load8_u $in (local.get $at)) (i32.const 1)) (i32.const 0xfe))
                            (i32.const 0x64)))
                          (local.set $at (call $skip (local.get $at)))
                          (br $next))
                        ;; $labels
                        (call $number (local.get $at))
                        (local.set $at)
                        (local.set $index)
                        (local.set $at (call $skip_all (local.get $at) (i32.add (local.get $index) (i32.const 1))))
                        (br $next))
                      ;; $call
                      (call $number (local.get $at))
                      (local.set $after)
                      (local.set $index)
                      (if (i32.lt_u (local.get $index) (global.get $functions))
                        (then
                          (local.set $opcode (i32.load8_u $tables offset=65536 (local.get $index)))
                          (if (i32.and (i32.ne (local.get $opcode) (i32.const 0)) (i32.lt_u (global.get $sites) (i32.const 64)))
                            (then
                              (if (local.get $roomy)
                                (then
                                  (if (i32.or
                                        (i32.eqz (i32.and (local.get $opcode) (i32.const 1)))
                                        (i32.le_u (global.get $calls) (i32.const 16)))
                                    (then
                                      (global.set $sites (i32.add (global.get $sites) (i32.const 1)))
                                      (local.set $to (call $copy (local.get $from) (global.get $last) (local.get $to)))
                                      (local.set $to (call $put_template (local.get $opcode) (local.get $to)))
                                      (call $find (global.get $if))
                                      (global.set $last (call $unreachable_or_last (local.get $after)))
                                      (local.set $from (local.get $after)))))
                                (else
                                  (global.set $calls (i32.add (global.get $calls) (i32.const 1)))))))))
                      (local.set $at (local.get $after))
                      (br $next))
                    ;; $numbers
                    (local.set $at (call $skip (call $skip (local.get $at))))
                    (br $next))
                  ;; $select
                  (br_if $unknown (i32.ne (i32.load8_u $in (local.get $at)) (i32.const 1)))
                  (local.set $at (call $value_type (i32.add (local.get $at) (i32.const 1))))
                  (br $next))
                ;; $bulk
                (call $number (local.get $at))
                (local.set $at)
                (local.set $index)
                (br_if $next (i32.lt_u (local.get $index) (i32.const 8)))
                (br_if $unknown (i32.gt_u (local.get $index) (i32.const 17)))
                (br_if $memory (i32.eq (local.get $index) (i32.const 11))) ;; memory.fill
                (if (i32.eq (local.get $index) (i32.const 10)) ;; memory.copy
                  (then
                    (call $move_memory (local.get $at) (local.get $from) (local.get $to))
                    (local.set $to)
                    (local.set $from)
                    (local.set $at)
                    (br $memory)))
                (local.set $at (call $skip (local.get $at)))
                (br_if $memory (i32.eq (local.get $index) (i32.const 8))) ;; memory.init
                (br_if $next (i32.gt_u (local.get $index) (i32.const 14)))
                (br_if $next (i32.and (local.get $index) (i32.const 1)))
                (local.set $at (call $skip (local.get $at))) ;; table.init, table.copy
                (br $next))
              ;; $vector
              (call $number (local.get $at))
              (local.set $at)
              (local.set $index)
              (br_if $unknown (i32.gt_u (local.get $index) (i32.const 0x113)))
              (if (i32.or
                    (i32.lt_u (local.get $index) (i32.const 12)) ;; v128.load … v128.store
                    (i32.lt_u (i32.sub (local.get $index) (i32.const 84)) (i32.const 10))) ;; lanes, zero
                (then
                  (call $move_memarg (local.get $at) (local.get $from) (local.get $to))
                  (local.set $to)
                  (local.set $from)
                  (local.set $at)
                  (local.set $at (i32.add (local.get $at)
                    (i32.lt_u (i32.sub (local.get $index) (i32.const 84)) (i32.const 8))))
                  (br $next)))
              (if (i32.lt_u (local.get $index) (i32.const 14)) ;; v128.const, i8x16.shuffle
                (then (local.set $at (i32.add (local.get $at) (i32.const 16))))
                (else
                  (local.set $at (i32.add (local.get $at)
                    (i32.lt_u (i32.sub (local.get $index) (i32.const 21)) (i32.const 14))))))
              (br $next))
            ;; $atomic
            (call $number (local.get $at))
            (local.set $at)
            (local.set $index)
            (br_if $unknown (i32.gt_u (local.get $index) (i32.const 0x4e)))
            (if (i32.eq (local.get $index) (i32.const 3)) ;; atomic.fence
              (then
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br $next)))
            (br_if $unknown (i32.lt_u (i32.sub (local.get $index) (i32.const 3)) (i32.const 13)))
            (call $move_memarg (local.get $at) (local.get $from) (local.get $to))
            (local.set $to)
            (local.set $from)
            (local.set $at)
            (br $next))
          ;; $memory
          (call $move_memory (local.get $at) (local.get $from) (local.get $to))
          (local.set $to)
          (local.set $from)
          (local.set $at)
          (br $next))
        (unreachable)))
    (if (i32.ne (local.get $at) (local.get $end)) (then (unreachable)))
    (if (i32.and (i32.eqz (local.get $roomy)) (i32.ne (global.get $calls) (i32.const 0)))
      (then (return (i32.const 0))))
    (call $copy (local.get $from) (local.get $at) (local.get $to)))

  (func $function (param $at i32) (param $end i32) (param $params i32) (param $to i32) (result i32)
    (local $target i32) (local $last i32) (local $start i32) (local $after i32)
    (global.set $calls (i32.const 0))
    (local.set $target (global.get $target))
    (local.set $last (global.get $last))
    (local.set $start (i32.add (local.get $to) (i32.const 5)))
    (local.set $after (call $body (local.get $at) (local.get $end) (local.get $params) (i32.const 0) (local.get $start)))
    (if (i32.eqz (local.get $after))
      (then
        (global.set $target (local.get $target))
        (global.set $last (local.get $last))
        (local.set $after (call $body (local.get $at) (local.get $end) (local.get $params) (i32.const 1) (local.get $start)))))
    (call $put_size (local.get $to) (i32.sub (local.get $after) (local.get $start)))
    (local.get $after))

  ;; ---- sections ---------------------------------------------------------------------------------

  (func $types (param $at i32)
    (local $count i32) (local $values i32) (local $to i32)
    (call $number (local.get $at))
    (local.set $at)
    (local.set $count)
    (local.set $to (i32.const 131072))
    (loop $next
      (if (local.get $count)
        (then
          (if (i32.ne (i32.load8_u $in (local.get $at)) (i32.const 0x60)) (then (unreachable)))
          (call $number (i32.add (local.get $at) (i32.const 1)))
          (local.set $at)
          (local.set $values)
          (i32.store $tables (local.get $to) (local.get $values))
          (call $number (call $value_types (local.get $at) (local.get $values)))
          (local.set $at)
          (local.set $values)
          (local.set $at (call $value_types (local.get $at) (local.get $values)))
          (local.set $to (i32.add (local.get $to) (i32.const 4)))
          (local.set $count (i32.sub (local.get $count) (i32.const 1)))
          (br $next)))))

  (func $imports (param $at i32) (param $end i32) (param $to i32) (result i32)
    (local $count i32)
    (call $number (local.get $at))
    (local.set $at)
    (local.set $count)
    (local.set $to (call $put_number (local.get $to) (i32.add (local.get $count) (i32.const 2))))
    (local.set $to (call $copy_section (local.get $at) (local.get $end) (local.get $to)))
    (memory.copy $out $tables (local.get $to) (i32.const 832) (i32.const 50))
    (i32.add (local.get $to) (i32.const 50)))

  (func $exports (param $at i32) (param $end i32) (param $to i32) (result i32)
    (local $from i32) (local $count i32) (local $length i32) (local $kind i32)
    (local.set $from (local.get $at))
    (call $number (local.get $at))
    (local.set $at)
    (local.set $count)
    (loop $next
      (if (local.get $count)
        (then
          (call $number (local.get $at))
          (local.set $at)
          (local.set $length)
          (local.set $at (i32.add (local.get $at) (local.get $length)))
          (local.set $kind (i32.load8_u $in (local.get $at)))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (if (i32.eq (local.get $kind) (i32.const 2))
            (then
              (call $move_memory (local.get $at) (local.get $from) (local.get $to))
              (local.set $to)
              (local.set $from)
              (local.set $at))
            (else (local.set $at (call $skip (local.get $at)))))
          (local.set $count (i32.sub (local.get $count) (i32.const 1)))
          (br $next))))
    (if (i32.ne (local.get $at) (local.get $end)) (then (unreachable)))
    (call $copy (local.get $from) (local.get $at) (local.get $to)))

  (func $code (param $at i32) (param $end i32) (param $to i32) (result i32)
    (local $count i32) (local $size i32) (local $type i32)
    (call $number (local.get $at))
    (local.set $at)
    (local.set $count)
    (local.set $to (call $put_number (local.get $to) (local.get $count)))
    (loop $next
      (if (local.get $count)
        (then
          (call $number (local.get $at))
          (local.set $at)
          (local.set $size)
          (if (i32.gt_u (local.get $size) (i32.sub (local.get $end) (local.get $at))) (then (unreachable)))
          (call $number (global.get $types))
          (global.set $types)
          (local.set $type)
          (local.set $to (call $function (local.get $at) (i32.add (local.get $at) (local.get $size))
            (i32.load $tables offset=131072 (i32.shl (local.get $type) (i32.const 2))) (local.get $to)))
          (local.set $at (i32.add (local.get $at) (local.get $size)))
          (local.set $count (i32.sub (local.get $count) (i32.const 1)))
          (br $next))))
    (if (i32.ne (local.get $at) (local.get $end)) (then (unreachable)))
    (local.get $to))

  ;; Skip a constant expression.
  (func $constant (param $at i32) (result i32)
    (local $opcode i32)
    (loop $next
      (local.set $opcode (i32.load8_u $in (local.get $at)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (if (i32.ne (local.get $opcode) (i32.const 0x0b))
        (then
          (if (i32.or
                (i32.eq (i32.and (local.get $opcode) (i32.const 0xfe)) (i32.const 0x42))
                (i32.eq (local.get $opcode) (i32.const 0x23)))
            (then (local.set $at (call $skip (local.get $at))) (br $next)))
          (if (i32.eq (local.get $opcode) (i32.const 0x41))
            (then (local.set $at (call $skip (local.get $at))) (br $next)))
          (if (i32.le_u (i32.sub (local.get $opcode) (i32.const 0x6a)) (i32.const 2)) (then (br $next)))
          (if (i32.le_u (i32.sub (local.get $opcode) (i32.const 0x7c)) (i32.const 2)) (then (br $next)))
          (unreachable))))
    (local.get $at))

  (func $data (param $at i32) (param $end i32) (param $to i32) (result i32)
    (local $from i32) (local $count i32) (local $flags i32) (local $length i32)
    (local.set $from (local.get $at))
    (call $number (local.get $at))
    (local.set $at)
    (local.set $count)
    (loop $next
      (if (local.get $count)
        (then
          (local.set $flags (i32.load8_u $in (local.get $at)))
          (if (i32.gt_u (local.get $flags) (i32.const 2)) (then (unreachable)))
          (if (i32.and (i32.eqz (local.get $flags)) (i32.eqz (global.get $memories)))
            (then ;; memory 0, without its index
              (local.set $to (call $copy_section (local.get $from) (local.get $at) (local.get $to)))
              (i32.store16 $out (local.get $to) (i32.const 0x202))
              (local.set $to (i32.add (local.get $to) (i32.const 2)))
              (local.set $from (i32.add (local.get $at) (i32.const 1)))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (if (i32.eq (local.get $flags) (i32.const 2))
            (then
              (local.set $to (call $copy_section (local.get $from) (local.get $at) (local.get $to)))
              (call $move_memory (local.get $at) (local.get $at) (local.get $to))
              (local.set $to)
              (local.set $from)
              (local.set $at)))
          (if (i32.ne (local.get $flags) (i32.const 1)) (then (local.set $at (call $constant (local.get $at)))))
          (call $number (local.get $at))
          (local.set $at)
          (local.set $length)
          (if (i32.gt_u (local.get $length) (i32.sub (local.get $end) (local.get $at))) (then (unreachable)))
          (local.set $at (i32.add (local.get $at) (local.get $length)))
          (local.set $count (i32.sub (local.get $count) (i32.const 1)))
          (br $next))))
    (if (i32.ne (local.get $at) (local.get $end)) (then (unreachable)))
    (call $copy_section (local.get $from) (local.get $at) (local.get $to)))

  (func $section (param $id i32) (param $at i32) (param $end i32) (param $to i32) (result i32)
    (if (i32.eq (local.get $id) (i32.const 2))
      (then (return (call $imports (local.get $at) (local.get $end) (local.get $to)))))
    (if (i32.eq (local.get $id) (i32.const 7))
      (then (return (call $exports (local.get $at) (local.get $end) (local.get $to)))))
    (if (i32.eq (local.get $id) (i32.const 10))
      (then (return (call $code (local.get $at) (local.get $end) (local.get $to)))))
    (if (i32.eq (local.get $id) (i32.const 11))
      (then (return (call $data (local.get $at) (local.get $end) (local.get $to)))))
    (call $copy_section (local.get $at) (local.get $end) (local.get $to)))

  ;; Make room for so many pages more.
  (func (export "grow") (param $in i32) (param $out i32)
    (if (i32.eq (memory.grow $in (local.get $in)) (i32.const -1)) (then (unreachable)))
    (if (i32.eq (memory.grow $out (local.get $out)) (i32.const -1)) (then (unreachable))))

  ;; Write the module in $in, of so many bytes, to $out. Return the length.
  (func (export "inline") (param $length i32) (param $functions i32) (param $memories i32) (result i32)
    (local $at i32) (local $to i32) (local $id i32) (local $size i32) (local $end i32) (local $after i32)
    (global.set $functions (local.get $functions))
    (global.set $memories (local.get $memories))
    (i32.store $tables offset=812 (i32.const 0) (local.get $memories))
    (i32.store $tables offset=816 (i32.const 0) (i32.add (local.get $memories) (i32.const 1)))
    (local.set $at (i32.const 8))
    (local.set $to (call $copy (i32.const 0) (i32.const 8) (i32.const 0)))
    (loop $next
      (if (i32.lt_u (local.get $at) (local.get $length))
        (then
          (local.set $id (i32.load8_u $in (local.get $at)))
          (call $number (i32.add (local.get $at) (i32.const 1)))
          (local.set $at)
          (local.set $size)
          (if (i32.gt_u (local.get $size) (i32.sub (local.get $length) (local.get $at))) (then (unreachable)))
          (local.set $end (i32.add (local.get $at) (local.get $size)))
          (if (i32.eq (local.get $id) (i32.const 1)) (then (call $types (local.get $at))))
          (if (i32.eq (local.get $id) (i32.const 3)) (then (global.set $types (call $skip (local.get $at)))))
          ;; Of the custom sections only the names are used.
          (if (i32.or (local.get $id) (i32.eq (i32.load8_u $in (local.get $at)) (i32.const 4)))
            (then (if (i32.or (local.get $id) (i32.eq (i32.load $in offset=1 (local.get $at)) (i32.const 0x656d616e)))
              (then
                (i32.store8 $out (local.get $to) (local.get $id))
                (local.set $after (call $section (local.get $id) (local.get $at) (local.get $end)
                  (i32.add (local.get $to) (i32.const 6))))
                (call $put_size (i32.add (local.get $to) (i32.const 1))
                  (i32.sub (local.get $after) (i32.add (local.get $to) (i32.const 6))))
                (local.set $to (local.get $after))))))
          (local.set $at (local.get $end))
          (br $next))))
    (local.get $to))
)
