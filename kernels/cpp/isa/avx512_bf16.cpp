#define LONGSPAN_ISA avx512_bf16
#define LONGSPAN_BF16_PREFILL
#include "table.inc"
