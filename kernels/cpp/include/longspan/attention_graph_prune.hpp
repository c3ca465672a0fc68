// Which candidates become edges: the occlusion rule, by distance between codes.
#pragma once

#include <algorithm>
#include <vector>

#include "longspan/attention_graph_scores.hpp"

namespace longspan::LONGSPAN_ISA {

struct Candidate {
    float distance;  // squared, to the node whose edges are chosen
    std::uint32_t node;
    const float* row;
    friend bool operator<(const Candidate& a, const Candidate& b) {
        return a.distance != b.distance ? a.distance < b.distance : a.node < b.node;
    }
};

// Chooses edges for one node after the other.
class Pruner {
  public:
    // `pool`: nearest candidates that are considered. `slack`: a kept edge hides a candidate that it is `slack` times
    // nearer to than the node is.
    Pruner(int width, int pool, float slack) : width_(width), pool_(static_cast<std::size_t>(pool)), slack_(slack) {}

    void begin() { candidates_.clear(); }
    // `row` is the code of `node` in float32 and must live until `choose` is done.
    void consider(std::uint32_t node, const float* row) { candidates_.push_back({0.0F, node, row}); }

    // The edges of `self`, whose code is `centre`: those not hidden, then the nearest hidden ones up to `degree`.
    const std::vector<std::uint32_t>& choose(std::uint32_t self, const float* centre, int degree) {
        order(self, centre);
        kept_.clear();
        hidden_.clear();
        rows_.clear();
        const auto most = static_cast<std::size_t>(degree);
        for (const Candidate& c : candidates_) {
            if (kept_.size() == most) return kept_;
            if (is_hidden(c)) {
                hidden_.push_back(c.node);
                continue;
            }
            kept_.push_back(c.node);
            rows_.push_back(c.row);
        }
        for (std::size_t i = 0; i < hidden_.size() && kept_.size() < most; ++i) kept_.push_back(hidden_[i]);
        return kept_;
    }

  private:
    int width_;
    std::size_t pool_;
    float slack_;
    std::vector<Candidate> candidates_;
    std::vector<std::uint32_t> kept_, hidden_;
    std::vector<const float*> rows_;

    // Leaves the `pool` nearest candidates, each once, nearest first.
    void order(std::uint32_t self, const float* centre) {
        std::sort(candidates_.begin(), candidates_.end(),
                  [](const Candidate& a, const Candidate& b) { return a.node < b.node; });
        const auto same = [](const Candidate& a, const Candidate& b) { return a.node == b.node; };
        candidates_.erase(std::unique(candidates_.begin(), candidates_.end(), same), candidates_.end());
        std::erase_if(candidates_, [&](const Candidate& c) { return c.node == self; });
        for (Candidate& c : candidates_) c.distance = squared_distance(centre, c.row, width_);
        std::sort(candidates_.begin(), candidates_.end());
        if (candidates_.size() > pool_) candidates_.resize(pool_);
    }

    bool is_hidden(const Candidate& c) const {
        for (const float* row : rows_)
            if (slack_ * squared_distance(c.row, row, width_) < c.distance) return true;
        return false;
    }
};

}  // namespace longspan::LONGSPAN_ISA
