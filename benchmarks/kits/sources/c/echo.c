#include "plugwasm.h"

PDK_FUNCTION(echo) {
    pdk_reset();
    pdk_bytes bytes = pdk_input_all();
    return pdk_output(bytes.data, bytes.size);
}
