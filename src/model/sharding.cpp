#include "model/sharding.hpp"

#include <algorithm>

namespace flanmoe {

bool is_owned(const Parameter& p) { return !p.frozen && (!p.full_precision || p.kind == ParameterKind::embedding); }

std::vector<std::vector<int>> owners_of(const std::vector<Parameter>& records, const MeshShape& mesh) {
    struct Piece {
        int64_t offset, elements;
        int* owner;
    };
    std::vector<std::vector<int>> owners(records.size());
    for (const bool divided : {false, true}) {  // by expert ranks
        const int64_t ranks = divided ? mesh.data : mesh.replicas();
        std::vector<Piece> pieces;
        int64_t total = 0, before = 0;
        for (size_t i = 0; i < records.size(); ++i) {
            const Parameter& p = records[i];
            if (ranks == 1 || !is_owned(p) || divided != (p.experts > 0 && mesh.expert > 1)) continue;
            owners[i].resize(static_cast<size_t>(divided ? p.experts / mesh.expert : p.tensors()));
            for (size_t t = 0; t < owners[i].size(); ++t) pieces.push_back({p.tensor_offset(static_cast<int64_t>(t)), p.shape.elements(), &owners[i][t]});
            total += p.shape.elements() * static_cast<int64_t>(owners[i].size());
        }
        std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.offset < b.offset; });
        for (const Piece& piece : pieces) {  // whose share its middle lies in
            *piece.owner = static_cast<int>((2 * before + piece.elements) * ranks / (2 * total));
            before += piece.elements;
        }
    }
    return owners;
}

int label_of(const ParameterStore& store, const Parameter& p, int64_t tensor) { return 2 * p.owner(tensor) + (&store.ranks_of(p) == &store.mesh().data()); }

std::vector<FlatRun> flat_runs(const ParameterStore& store, int64_t most, const std::function<std::optional<int>(const Parameter&, int64_t)>& label) {
    struct Piece {
        FlatRun run;
        std::optional<int> label;
    };
    std::vector<Piece> pieces;
    for (size_t i = 0; i < store.records().size(); ++i) {
        const Parameter& p = store.records()[i];
        for (int64_t e = 0; e < p.part_tensors(); ++e) pieces.push_back({{p.tensor_offset(e), p.part.elements(), i, &store.ranks_of(p), p.owner(e)}, label(p, e)});
    }
    std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.run.first > b.run.first; });
    std::vector<FlatRun> runs;
    std::optional<int> last;
    for (const Piece& piece : pieces) {
        const int64_t joined = runs.empty() ? 0 : runs.back().first + runs.back().elements - piece.run.first;
        if (piece.label && piece.label == last && joined <= most) {  // gaps of alignment in between
            runs.back().first = piece.run.first, runs.back().elements = joined;
            runs.back().first_record = std::min(runs.back().first_record, piece.run.first_record);
        } else if (piece.label) {
            runs.push_back(piece.run);
        }
        last = piece.label;
    }
    return runs;
}

WeightSync::WeightSync(const ParameterStore& store, int64_t piece_bytes) : store_(store) {
    if (!store.is_sharded()) return;
    for (const bool master : {true, false}) {
        const auto label = [&](const Parameter& p, int64_t tensor) -> std::optional<int> {
            if (p.owners.empty() || store.has_common_master(p) != master) return std::nullopt;
            return label_of(store, p, tensor);
        };
        const DType type = master ? store.master_type() : store.compute_type();
        for (const FlatRun& run : flat_runs(store, piece_bytes / size_of(type), label))
            (master ? masters_ : computes_).push_back({master ? store.masters(run.first, run.elements) : store.computes(run.first, run.elements), run.ranks, run.owner});
    }
}

void WeightSync::share(Context& context, const std::vector<Piece>& pieces) {
    for (const Piece& piece : pieces) piece.ranks->broadcast(context, piece.values, piece.owner);
}

void WeightSync::run(Context& context) const {
    share(context, masters_);
    store_.update_compute();
    share(context, computes_);
}

}  // namespace flanmoe
