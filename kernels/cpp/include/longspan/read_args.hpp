// What `read` works on.
#pragma once

#include <cstdint>

namespace longspan {

struct ReadArgs {
    const std::uint64_t* words;
    std::int64_t count;
    int threads;
};

}  // namespace longspan
