#define LONGSPAN_ISA portable
#include "table.inc"
