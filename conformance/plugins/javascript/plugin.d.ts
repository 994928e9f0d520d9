declare module "extism:host" {
  interface user {
    host_i32(value: I32): I32;
    host_i64(value: I64): I64;
    host_f32(value: F32): F32;
    host_f64(value: F64): F64;
    host_text(block: PTR): PTR;
    host_bytes(block: PTR): PTR;
    host_json(block: PTR): PTR;
  }
}

declare module "conformance:host" {
  function host_other(): void;
}
