#define LONGSPAN_NEON
#define LONGSPAN_ISA neon
#include "table.inc"
