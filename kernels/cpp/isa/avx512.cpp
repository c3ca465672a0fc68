#define LONGSPAN_ISA avx512
#include "table.inc"
