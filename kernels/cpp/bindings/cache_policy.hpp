// Names of the policies, and what a cache may be made with.
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

inline CacheOptions checked_options(std::int64_t pages, int page, int groups, std::string_view policy, int layers) {
    if (pages < 0 || page < 1 || groups < 1 || layers < 1)
        throw std::invalid_argument("pages must be at least 0, page, groups and layers at least 1");
    return {pages, page, groups, parse_policy(policy), layers};
}

}  // namespace longspan
