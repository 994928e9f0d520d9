;; The table of config and vars: a part of the kernel's module (kernel.wat).
;;
;; The start of $book keeps what plugins ask for most, so that they get it without leaving
;; Wasm: the plugin's vars as long as they are few and small, the settings that it has asked for,
;; and which messages nobody would hear.
;;
;;      +0  1 + the number of the lowest level of messages that the host takes, 6 if it takes none;
;;          0 if it has to be asked
;;      +4  the generation of the config: another number whenever the config has changed
;;      +8  1 while the vars are here, and not with the host
;;     +12  1 if the host wants the vars back
;;     +16  how many calls the host serves before it is asked for the vars
;;     +20  counts changes of the table; odd while one is under way
;;     +24  the half in use, or 0 for the first
;;     +28  the most bytes that vars may have, and +32 the most vars
;;     +64  the name that is looked up, filled up with zeros
;;   +1024  two halves of 13,824 bytes
;;
;; The host writes the first words at any time, and the plugin's code runs meanwhile; the others
;; only while it is asked. A half begins with 64 lists of entries by the hashes of their names.
;; The entries follow, one after the other, up to $tail:
;;
;;      +0  the next entry of the list, or 0
;;      +4  the hash
;;      +8  0 for a var; 1 + the generation for a setting
;;     +12  vars: their order, by when each was first set
;;     +16  length of the name, +20 length of the value
;;     +24  the name, filled up with zeros to a multiple of 8 bytes; the value, likewise
;;
;; An entry never changes, but is replaced, and a change is one store: of the address of the new
;; entry into the list, or of the half in use. A guest may be ended at any turn of a loop and at
;; any call, so `$commit` has neither, and what the host finds is complete. When the half is full,
;; the entries that count are copied to the other one. They are at most 5,632 bytes of vars and
;; 2,048 of settings, so two fifths of a half are free then, and a list is never long enough
;; to take more than microseconds.

(global $half (mut i32) (i32.const 1024))
(global $tail (mut i32) (i32.const 1280))
(global $bound (mut i32) (i32.const 5120))     ;; copy before $tail passes it
(global $var_count (mut i32) (i32.const 0))
(global $var_bytes (mut i32) (i32.const 0))    ;; of names and values
(global $var_size (mut i32) (i32.const 0))     ;; of entries
(global $order (mut i32) (i32.const 0))
(global $config_kind (mut i32) (i32.const 0))
(global $config_size (mut i32) (i32.const 0))
(global $link (mut i32) (i32.const 0))         ;; what refers to the entry that $find has found
(global $hash (mut i32) (i32.const 0))         ;; of the name that it has looked for

(func $padded (param $length i32) (result i32)
  (i32.and (i32.add (local.get $length) (i32.const 7)) (i32.const -8)))

(func $entry_size (param $name_length i32) (param $value_length i32) (result i32)
  (i32.add (i32.const 24) (i32.add (call $padded (local.get $name_length)) (call $padded (local.get $value_length)))))

(func $size_of (param $entry i32) (result i32)
  (call $entry_size (i32.load $book offset=16 (local.get $entry)) (i32.load $book offset=20 (local.get $entry))))

(func $value_of (param $entry i32) (result i32)
  (i32.add (i32.add (local.get $entry) (i32.const 24)) (call $padded (i32.load $book offset=16 (local.get $entry)))))

(func $length_at (param $block i32) (result i32)
  (i32.load $book offset=8 (call $record (local.get $block))))

;; Copy the bytes of a block to where names are looked up, and return their number; -1 if there is
;; no such block, or too many. The null handle has none. Whole words are read: the rest of a
;; granule belongs to the block.
(func $read_name (param $handle i64) (result i32)
  (local $block i32) (local $length i32) (local $from i32) (local $at i32) (local $spare i32)
  (if (i64.eqz (local.get $handle)) (then (return (i32.const 0))))
  (local.set $block (call $block_at (local.get $handle)))
  (if (i32.eqz (local.get $block)) (then (return (i32.const -1))))
  (local.set $length (call $length_at (local.get $block)))
  (if (i32.gt_u (local.get $length) (i32.const 512)) (then (return (i32.const -1))))
  (local.set $from (i32.wrap_i64 (local.get $handle)))
  (loop $next
    (i64.store $book offset=64 (local.get $at) (i64.load $heap (i32.add (local.get $from) (local.get $at))))
    (local.set $at (i32.add (local.get $at) (i32.const 8)))
    (br_if $next (i32.lt_u (local.get $at) (local.get $length))))
  (local.set $spare (i32.shl (i32.sub (local.get $at) (local.get $length)) (i32.const 3)))
  (i64.store $book offset=56 (local.get $at)
    (i64.and
      (i64.load $book offset=56 (local.get $at))
      (i64.shr_u (i64.const -1) (i64.extend_i32_u (local.get $spare)))))
  (local.get $length))

(func $hash_of (param $name i32) (param $length i32) (result i32)
  (local $sum i64) (local $end i32)
  (local.set $sum (i64.extend_i32_u (local.get $length)))
  (local.set $end (i32.add (local.get $name) (local.get $length)))
  (block $done
    (loop $next
      (br_if $done (i32.ge_u (local.get $name) (local.get $end)))
      (local.set $sum
        (i64.mul (i64.xor (local.get $sum) (i64.load $book (local.get $name))) (i64.const 0x9e3779b97f4a7c15)))
      (local.set $sum (i64.xor (local.get $sum) (i64.shr_u (local.get $sum) (i64.const 32))))
      (local.set $name (i32.add (local.get $name) (i32.const 8)))
      (br $next)))
  (i32.wrap_i64 (local.get $sum)))

;; Return where the list of a hash begins.
(func $list (param $half i32) (param $hash i32) (result i32)
  (i32.add (local.get $half) (i32.shl (i32.and (local.get $hash) (i32.const 63)) (i32.const 2))))

(func $is_named (param $entry i32) (param $length i32) (result i32)
  (local $at i32)
  (block $done
    (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $length)))
      (if (i64.ne
            (i64.load $book offset=64 (local.get $at))
            (i64.load $book offset=24 (i32.add (local.get $entry) (local.get $at))))
        (then (return (i32.const 0))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br $next)))
  (i32.const 1))

;; Return the entry of that kind whose name was read by $read_name, or 0.
(func $find (param $kind i32) (param $length i32) (result i32)
  (local $entry i32)
  (global.set $hash (call $hash_of (i32.const 64) (local.get $length)))
  (global.set $link (call $list (global.get $half) (global.get $hash)))
  (loop $next (result i32)
    (local.set $entry (i32.load $book (global.get $link)))
    (if (i32.eqz (local.get $entry)) (then (return (i32.const 0))))
    (if (i32.and
          (i32.and
            (i32.eq (i32.load $book offset=4 (local.get $entry)) (global.get $hash))
            (i32.eq (i32.load $book offset=8 (local.get $entry)) (local.get $kind)))
          (i32.eq (i32.load $book offset=16 (local.get $entry)) (local.get $length)))
      (then (if (call $is_named (local.get $entry) (local.get $length)) (then (return (local.get $entry))))))
    (global.set $link (local.get $entry))
    (br $next)))

;; Write an entry to $tail, where there must be room for it. It does not count yet.
(func $write (param $kind i32) (param $order i32) (param $next i32) (param $name_length i32) (param $value i64) (param $value_length i32)
  (local $entry i32)
  (local.set $entry (global.get $tail))
  (i32.store $book (local.get $entry) (local.get $next))
  (i32.store $book offset=4 (local.get $entry) (global.get $hash))
  (i32.store $book offset=8 (local.get $entry) (local.get $kind))
  (i32.store $book offset=12 (local.get $entry) (local.get $order))
  (i32.store $book offset=16 (local.get $entry) (local.get $name_length))
  (i32.store $book offset=20 (local.get $entry) (local.get $value_length))
  (memory.copy $book $book
    (i32.add (local.get $entry) (i32.const 24)) (i32.const 64) (call $padded (local.get $name_length)))
  (memory.copy $book $heap (call $value_of (local.get $entry)) (i32.wrap_i64 (local.get $value)) (local.get $value_length)))

;; Put an entry, or 0, in the place of the one that $find has found, and count the vars anew.
(func $commit (param $entry i32) (param $tail i32) (param $count i32) (param $bytes i32) (param $size i32)
  (i32.store $book (i32.const 20) (i32.add (i32.load $book (i32.const 20)) (i32.const 1)))
  (i32.store $book (global.get $link) (local.get $entry))
  (global.set $tail (local.get $tail))
  (global.set $var_count (local.get $count))
  (global.set $var_bytes (local.get $bytes))
  (global.set $var_size (local.get $size))
  (i32.store $book (i32.const 20) (i32.add (i32.load $book (i32.const 20)) (i32.const 1))))

;; Copy the entries that count to the other half.
(func $compact
  (local $to i32) (local $tail i32) (local $list i32) (local $entry i32) (local $kind i32) (local $size i32)
  (local.set $to (i32.sub (i32.const 15872) (global.get $half)))
  (local.set $tail (i32.add (local.get $to) (i32.const 256)))
  (memory.fill $book (local.get $to) (i32.const 0) (i32.const 256))
  (loop $next_list
    (local.set $entry (i32.load $book (i32.add (global.get $half) (local.get $list))))
    (block $end_of_list
      (loop $next
        (br_if $end_of_list (i32.eqz (local.get $entry)))
        (local.set $kind (i32.load $book offset=8 (local.get $entry)))
        (if (select
              (i32.eq (local.get $kind) (global.get $config_kind))
              (i32.load $book (i32.const 8))
              (local.get $kind))
          (then
            (local.set $size (call $size_of (local.get $entry)))
            (memory.copy $book $book (local.get $tail) (local.get $entry) (local.get $size))
            (i32.store $book (local.get $tail) (i32.load $book (i32.add (local.get $to) (local.get $list))))
            (i32.store $book (i32.add (local.get $to) (local.get $list)) (local.get $tail))
            (local.set $tail (i32.add (local.get $tail) (local.get $size)))))
        (local.set $entry (i32.load $book (local.get $entry)))
        (br $next)))
    (local.set $list (i32.add (local.get $list) (i32.const 4)))
    (br_if $next_list (i32.lt_u (local.get $list) (i32.const 256))))
  (i32.store $book (i32.const 20) (i32.add (i32.load $book (i32.const 20)) (i32.const 1)))
  (i32.store $book (i32.const 24) (local.get $to))
  (global.set $half (local.get $to))
  (global.set $tail (local.get $tail))
  (i32.store $book (i32.const 20) (i32.add (i32.load $book (i32.const 20)) (i32.const 1))))

;; Let the half be used up to twice of what it has now and the size of an entry that follows, so
;; that a table with little in it takes little of the machine's memory.
(func $set_bound (param $size i32)
  (local $bound i32) (local $end i32)
  (local.set $bound
    (i32.add
      (i32.add (global.get $tail) (local.get $size))
      (i32.add (i32.sub (global.get $tail) (global.get $half)) (i32.const 3072))))
  (local.set $end (i32.add (global.get $half) (i32.const 13824)))
  (global.set $bound (select (local.get $bound) (local.get $end) (i32.lt_u (local.get $bound) (local.get $end)))))

;; Make room for an entry. Call it before $find.
(func $make_table_room (param $size i32)
  (if (i32.le_u (i32.add (global.get $tail) (local.get $size)) (global.get $bound)) (then (return)))
  (call $compact)
  (call $set_bound (local.get $size)))

;; Return a new block with the value of an entry; 0 if that is empty, or there is no room.
(func $copy_value (param $entry i32) (result i64)
  (local $block i64) (local $length i32)
  (local.set $length (i32.load $book offset=20 (local.get $entry)))
  (local.set $block (call $alloc (i64.extend_i32_u (local.get $length))))
  (if (i64.ne (local.get $block) (i64.const 0))
    (then
      (memory.copy $heap $book
        (i32.wrap_i64 (local.get $block)) (call $value_of (local.get $entry)) (local.get $length))))
  (local.get $block))

;; ---- config -----------------------------------------------------------------------------------

(func (export "config_get") (param $key i64) (result i64)
  (local $kind i32) (local $length i32) (local $entry i32) (local $value i64)
  ;; Read before the host looks: if the config changes meanwhile, the answer is kept in vain.
  (local.set $kind (i32.add (i32.load $book (i32.const 4)) (i32.const 1)))
  (local.set $length (call $read_name (local.get $key)))
  (if (i32.ge_s (local.get $length) (i32.const 0))
    (then (local.set $entry (call $find (local.get $kind) (local.get $length)))))
  (if (local.get $entry)
    (then
      (local.set $value (call $copy_value (local.get $entry)))
      (if (i32.or
            (i64.ne (local.get $value) (i64.const 0))
            (i32.eqz (i32.load $book offset=20 (local.get $entry))))
        (then
          (call $take (local.get $key))
          (return (local.get $value))))))
  (local.set $value (call $ask (local.get $key) (i64.const 0) (i32.const 1)))
  (if (i32.and (i32.ge_s (local.get $length) (i32.const 0)) (i32.eqz (local.get $entry)))
    (then (call $keep_setting (local.get $kind) (local.get $length) (local.get $value))))
  (call $take (local.get $key))
  (local.get $value))

;; Keep the setting whose key was read by $read_name, unless it is large. A key without a setting
;; is kept like an empty one.
(func $keep_setting (param $kind i32) (param $length i32) (param $value i64)
  (local $value_length i32) (local $size i32)
  (local.set $value_length (i32.wrap_i64 (call $length (local.get $value))))
  (if (i32.gt_u (local.get $value_length) (i32.const 1024)) (then (return)))
  (if (i32.ne (local.get $kind) (global.get $config_kind))
    (then
      (global.set $config_kind (local.get $kind))
      (global.set $config_size (i32.const 0))))
  (local.set $size (call $entry_size (local.get $length) (local.get $value_length)))
  (if (i32.gt_u (i32.add (global.get $config_size) (local.get $size)) (i32.const 2048)) (then (return)))
  (call $make_table_room (local.get $size))
  (drop (call $find (local.get $kind) (local.get $length)))
  (call $write
    (local.get $kind) (i32.const 0) (i32.const 0) (local.get $length) (local.get $value) (local.get $value_length))
  (global.set $config_size (i32.add (global.get $config_size) (local.get $size)))
  (call $commit
    (global.get $tail) (i32.add (global.get $tail) (local.get $size))
    (global.get $var_count) (global.get $var_bytes) (global.get $var_size)))

;; ---- vars -------------------------------------------------------------------------------------

;; Return 1 if the vars are in the table, where they are fetched to.
(func $has_vars (result i32)
  (local $calls i32)
  (if (i32.load $book (i32.const 8)) (then (return (i32.eqz (i32.load $book (i32.const 12))))))
  (local.set $calls (i32.load $book (i32.const 16)))
  (if (local.get $calls)
    (then
      (i32.store $book (i32.const 16) (i32.sub (local.get $calls) (i32.const 1)))
      (return (i32.const 0))))
  (call $fetch_vars))

(func $fetch_vars (result i32)
  (local $entry i32) (local $end i32) (local $size i32) (local $list i32)
  (call $compact)
  (local.set $end
    (i32.wrap_i64 (call $ask (i64.extend_i32_u (global.get $tail)) (i64.const 5632) (i32.const 2))))
  (if (i32.eqz (local.get $end)) (then (return (i32.const 0))))
  (global.set $var_count (i32.const 0))
  (global.set $var_bytes (i32.const 0))
  (global.set $var_size (i32.sub (local.get $end) (global.get $tail)))
  (local.set $entry (global.get $tail))
  (block $done
    (loop $next
      (br_if $done (i32.ge_u (local.get $entry) (local.get $end)))
      (i32.store $book offset=4 (local.get $entry)
        (call $hash_of (i32.add (local.get $entry) (i32.const 24)) (i32.load $book offset=16 (local.get $entry))))
      (local.set $list (call $list (global.get $half) (i32.load $book offset=4 (local.get $entry))))
      (i32.store $book (local.get $entry) (i32.load $book (local.get $list)))
      (i32.store $book (local.get $list) (local.get $entry))
      (global.set $var_count (i32.add (global.get $var_count) (i32.const 1)))
      (global.set $var_bytes
        (i32.add (global.get $var_bytes)
          (i32.add (i32.load $book offset=16 (local.get $entry)) (i32.load $book offset=20 (local.get $entry)))))
      (local.set $entry (i32.add (local.get $entry) (call $size_of (local.get $entry))))
      (br $next)))
  (global.set $order (global.get $var_count))
  (global.set $tail (local.get $end))
  (call $set_bound (i32.const 0))
  (i32.store $book (i32.const 8) (i32.const 1))
  (i32.const 1))

(func (export "var_get") (param $name i64) (result i64)
  (local $length i32) (local $entry i32) (local $value i64)
  (if (call $has_vars)
    (then
      (local.set $length (call $read_name (local.get $name)))
      (if (i32.ge_s (local.get $length) (i32.const 0))
        (then
          (local.set $entry (call $find (i32.const 0) (local.get $length)))
          (if (local.get $entry) (then (local.set $value (call $copy_value (local.get $entry)))))
          (if (select
                (i32.or
                  (i64.ne (local.get $value) (i64.const 0))
                  (i32.eqz (i32.load $book offset=20 (local.get $entry))))
                (i32.const 1)
                (local.get $entry))
            (then
              (call $take (local.get $name))
              (return (local.get $value))))))))
  (call $ask (local.get $name) (i64.const 0) (i32.const 3)))

(func (export "var_set") (param $name i64) (param $value i64)
  (if (call $has_vars) (then (if (call $set_var (local.get $name) (local.get $value)) (then (return)))))
  (drop (call $ask (local.get $name) (local.get $value) (i32.const 4))))

;; Set a var in the table. Return 0, and change nothing, if the host has to do it: to report an
;; error, or to take the vars because they are too large for the table.
(func $set_var (param $name i64) (param $value i64) (result i32)
  (local $length i32) (local $block i32) (local $value_length i32) (local $entry i32) (local $order i32)
  (local $count i32) (local $bytes i32) (local $size i32) (local $new_size i32)
  (local.set $length (call $read_name (local.get $name)))
  (if (i32.lt_s (local.get $length) (i32.const 0)) (then (return (i32.const 0))))
  (if (i64.ne (local.get $value) (i64.const 0))
    (then
      (local.set $block (call $block_at (local.get $value)))
      (if (i32.eqz (local.get $block)) (then (return (i32.const 0))))
      (local.set $value_length (call $length_at (local.get $block)))
      (if (i32.gt_u (local.get $value_length) (i32.const 5632)) (then (return (i32.const 0))))
      (local.set $new_size (call $entry_size (local.get $length) (local.get $value_length)))
      (if (i32.gt_u (local.get $new_size) (i32.const 5632)) (then (return (i32.const 0))))
      (call $make_table_room (local.get $new_size))))
  (local.set $entry (call $find (i32.const 0) (local.get $length)))
  (local.set $count (global.get $var_count))
  (local.set $bytes (global.get $var_bytes))
  (local.set $size (global.get $var_size))
  (if (local.get $entry)
    (then
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (local.set $bytes
        (i32.sub (local.get $bytes)
          (i32.add (i32.load $book offset=16 (local.get $entry)) (i32.load $book offset=20 (local.get $entry)))))
      (local.set $size (i32.sub (local.get $size) (call $size_of (local.get $entry))))))
  (if (i64.eqz (local.get $value))
    (then
      (if (local.get $entry)
        (then
          (call $commit
            (i32.load $book (local.get $entry)) (global.get $tail)
            (local.get $count) (local.get $bytes) (local.get $size))))
      (call $take (local.get $name))
      (return (i32.const 1))))
  (local.set $count (i32.add (local.get $count) (i32.const 1)))
  (local.set $bytes (i32.add (local.get $bytes) (i32.add (local.get $length) (local.get $value_length))))
  (local.set $size (i32.add (local.get $size) (local.get $new_size)))
  (if (i32.or
        (i32.gt_u (local.get $size) (i32.const 5632))
        (i32.or
          (i32.gt_u (local.get $bytes) (i32.load $book (i32.const 28)))
          (i32.gt_u (local.get $count) (i32.load $book (i32.const 32)))))
    (then (return (i32.const 0))))
  (if (local.get $entry)
    (then (local.set $order (i32.load $book offset=12 (local.get $entry))))
    (else
      (local.set $order (global.get $order))
      (global.set $order (i32.add (global.get $order) (i32.const 1)))))
  (call $write
    (i32.const 0) (local.get $order)
    (if (result i32) (local.get $entry) (then (i32.load $book (local.get $entry))) (else (i32.const 0)))
    (local.get $length) (local.get $value) (local.get $value_length))
  (call $commit
    (global.get $tail) (i32.add (global.get $tail) (local.get $new_size))
    (local.get $count) (local.get $bytes) (local.get $size))
  (call $take (local.get $name))
  (call $take (local.get $value))
  (i32.const 1))

;; ---- the log ----------------------------------------------------------------------------------

(func (export "get_log_level") (result i32)
  (local $heard i32)
  (local.set $heard (i32.load $book (i32.const 0)))
  (if (i32.eqz (local.get $heard))
    (then (return (i32.wrap_i64 (call $ask (i64.const 0) (i64.const 0) (i32.const 5))))))
  (select (i32.const 0x7fffffff) (i32.sub (local.get $heard) (i32.const 1)) (i32.eq (local.get $heard) (i32.const 6))))

(func (export "log_trace") (param $message i64) (call $log (local.get $message) (i32.const 1)))
(func (export "log_debug") (param $message i64) (call $log (local.get $message) (i32.const 2)))
(func (export "log_info") (param $message i64) (call $log (local.get $message) (i32.const 3)))
(func (export "log_warn") (param $message i64) (call $log (local.get $message) (i32.const 4)))
(func (export "log_error") (param $message i64) (call $log (local.get $message) (i32.const 5)))

;; Drop a message that nobody would hear, else pass it to the host. $level is 1 + its number.
(func $log (param $message i64) (param $level i32)
  (if (i32.gt_u (i32.load $book (i32.const 0)) (local.get $level))
    (then
      (if (i64.eqz (local.get $message)) (then (return)))
      (if (call $block_at (local.get $message)) (then (call $take (local.get $message)) (return)))))
  (drop (call $ask (local.get $message) (i64.const 0) (i32.add (local.get $level) (i32.const 5)))))
