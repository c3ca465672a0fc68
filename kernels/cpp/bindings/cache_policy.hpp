// Names of the policies.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include "longspan/block_cache_args.hpp"

namespace longspan {

inline CachePolicy parse_policy(std::string_view name) {
    if (name == "lru") return CachePolicy::lru;
    if (name == "tinylfu") return CachePolicy::tinylfu;
    if (name == "lfu") return CachePolicy::lfu;
    throw std::invalid_argument("policy is '" + std::string(name) + "'; right is lru, tinylfu or lfu");
}

}  // namespace longspan
