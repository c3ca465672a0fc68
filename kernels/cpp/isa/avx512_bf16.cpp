#define LONGSPAN_ISA avx512_bf16
#include "table.inc"
