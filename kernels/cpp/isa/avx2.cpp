#define LONGSPAN_ISA avx2
#include "table.inc"
