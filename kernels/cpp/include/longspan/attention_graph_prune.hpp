// Which candidates become edges: the occlusion rule, by distance between codes.
#pragma once

#include <algorithm>
#include <vector>

#include "longspan/attention_graph_scores.hpp"

namespace longspan::LONGSPAN_ISA {

struct Candidate {
    float distance;  // squared, to the node whose edges are chosen
    std::uint32_t node;
    friend bool operator<(const Candidate& a, const Candidate& b) {
        return a.distance != b.distance ? a.distance < b.distance : a.node < b.node;
    }
};

// Chooses edges for one node after the other; `Rows` gives the float32 code of a node.
template <class Rows>
struct Pruner {
    const Rows& rows;
    int width;
    int degree;
    int pool;     // nearest candidates that are considered
    float slack;  // a candidate is hidden by a kept edge that is `slack` times nearer to it than the node is
    std::vector<Candidate> candidates;
    std::vector<std::uint32_t> kept;

    void begin() { candidates.clear(); }
    void consider(std::uint32_t node) { candidates.push_back({0.0F, node}); }

    // Leaves the edges of `self`, whose code is `centre`, in `kept`; the nearest hidden ones fill up to `degree`.
    void choose(std::uint32_t self, const float* centre, bool fill) {
        const auto by_node = [](const Candidate& a, const Candidate& b) { return a.node < b.node; };
        const auto same = [](const Candidate& a, const Candidate& b) { return a.node == b.node; };
        std::sort(candidates.begin(), candidates.end(), by_node);
        candidates.erase(std::unique(candidates.begin(), candidates.end(), same), candidates.end());
        std::erase_if(candidates, [&](const Candidate& c) { return c.node == self; });
        for (Candidate& c : candidates) c.distance = squared_distance(centre, rows(c.node), width);
        std::sort(candidates.begin(), candidates.end());
        if (static_cast<int>(candidates.size()) > pool) candidates.resize(static_cast<std::size_t>(pool));
        kept.clear();
        hidden_.clear();
        for (const Candidate& c : candidates) {
            if (static_cast<int>(kept.size()) == degree) return;
            (is_hidden(c) ? hidden_ : kept).push_back(c.node);
        }
        if (!fill) return;
        for (std::uint32_t node : hidden_) {
            if (static_cast<int>(kept.size()) == degree) return;
            kept.push_back(node);
        }
    }

  private:
    std::vector<std::uint32_t> hidden_;

    bool is_hidden(const Candidate& c) const {
        const float* row = rows(c.node);
        for (std::uint32_t node : kept)
            if (slack * squared_distance(row, rows(node), width) < c.distance) return true;
        return false;
    }
};

struct FlatRows {
    const float* rows;
    int width;
    const float* operator()(std::uint32_t node) const { return rows + static_cast<std::int64_t>(node) * width; }
};

}  // namespace longspan::LONGSPAN_ISA
