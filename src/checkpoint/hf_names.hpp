// Tensor names: what a parameter is called in each Hugging Face layout.
//
// Parameters carry the names of the T5 family ("decoder.block.0.layer.1.mlp.wo.weight"), which t5, switch_transformers and flanmoe share but for one
// word; mixtral and qwen2_moe have names of their own for the same parts.
#pragma once

#include "checkpoint/hf_config.hpp"

#include <string>
#include <vector>

namespace flanmoe {

/// Name in `layout` of the tensor that a parameter calls `name` (with the expert number, or "{e}", in place). A name that the layout has no word for
/// stays as it is.
std::string name_in_layout(const std::string& name, HfLayout layout);
/// The names that a tensor may have in any layout, each once.
std::vector<std::string> names_in_layouts(const std::string& name);

}  // namespace flanmoe
