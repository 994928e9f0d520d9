//go:build wasm

package pdk

// The functions of the plugin contract. A handle is an offset into the host's memory; 0 is none.

//go:wasmimport extism:host/env alloc
func envAlloc(size uint64) uint64

//go:wasmimport extism:host/env free
func envFree(handle uint64)

//go:wasmimport extism:host/env length
func envLength(handle uint64) uint64

//go:wasmimport extism:host/env load_u8
func envLoadU8(at uint64) uint32

//go:wasmimport extism:host/env load_u64
func envLoadU64(at uint64) uint64

//go:wasmimport extism:host/env store_u8
func envStoreU8(at uint64, value uint32)

//go:wasmimport extism:host/env store_u64
func envStoreU64(at uint64, value uint64)

//go:wasmimport extism:host/env input_length
func envInputLength() uint64

//go:wasmimport extism:host/env input_load_u8
func envInputLoadU8(at uint64) uint32

//go:wasmimport extism:host/env input_load_u64
func envInputLoadU64(at uint64) uint64

//go:wasmimport extism:host/env output_set
func envOutputSet(handle, size uint64)

//go:wasmimport extism:host/env error_set
func envErrorSet(handle uint64)

//go:wasmimport extism:host/env config_get
func envConfigGet(key uint64) uint64

//go:wasmimport extism:host/env var_get
func envVarGet(name uint64) uint64

//go:wasmimport extism:host/env var_set
func envVarSet(name, value uint64)

//go:wasmimport extism:host/env http_request
func envHTTPRequest(request, body uint64) uint64

//go:wasmimport extism:host/env http_status_code
func envHTTPStatusCode() int32

//go:wasmimport extism:host/env http_headers
func envHTTPHeaders() uint64

//go:wasmimport extism:host/env get_log_level
func envGetLogLevel() int32

//go:wasmimport extism:host/env log_trace
func envLogTrace(text uint64)

//go:wasmimport extism:host/env log_debug
func envLogDebug(text uint64)

//go:wasmimport extism:host/env log_info
func envLogInfo(text uint64)

//go:wasmimport extism:host/env log_warn
func envLogWarn(text uint64)

//go:wasmimport extism:host/env log_error
func envLogError(text uint64)
