//go:build !wasm

package pdk

// Elsewhere the package can be compiled, so that editors and tests of a plugin's own code work, and
// calls of the host panic.

func noHost() {
	panic("pdk: this calls the host, which only a plugin has: build it with GOOS=wasip1 GOARCH=wasm")
}

func envAlloc(uint64) uint64               { noHost(); return 0 }
func envFree(uint64)                       { noHost() }
func envLength(uint64) uint64              { noHost(); return 0 }
func envLoadU8(uint64) uint32              { noHost(); return 0 }
func envLoadU64(uint64) uint64             { noHost(); return 0 }
func envStoreU8(uint64, uint32)            { noHost() }
func envStoreU64(uint64, uint64)           { noHost() }
func envInputLength() uint64               { noHost(); return 0 }
func envInputLoadU8(uint64) uint32         { noHost(); return 0 }
func envInputLoadU64(uint64) uint64        { noHost(); return 0 }
func envOutputSet(uint64, uint64)          { noHost() }
func envErrorSet(uint64)                   { noHost() }
func envConfigGet(uint64) uint64           { noHost(); return 0 }
func envVarGet(uint64) uint64              { noHost(); return 0 }
func envVarSet(uint64, uint64)             { noHost() }
func envHTTPRequest(uint64, uint64) uint64 { noHost(); return 0 }
func envHTTPStatusCode() int32             { noHost(); return 0 }
func envHTTPHeaders() uint64               { noHost(); return 0 }
func envGetLogLevel() int32                { noHost(); return 0 }
func envLogTrace(uint64)                   { noHost() }
func envLogDebug(uint64)                   { noHost() }
func envLogInfo(uint64)                    { noHost() }
func envLogWarn(uint64)                    { noHost() }
func envLogError(uint64)                   { noHost() }
