#define LONGSPAN_NEON
#define LONGSPAN_ISA neon_bf16
#include "table.inc"
