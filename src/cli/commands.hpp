// The subcommands of flanmoe, one file each. A function here adds its subcommand, options and callback to the program; main() lists them.
#pragma once

namespace CLI {
class App;
}

namespace flanmoe::cli {

}  // namespace flanmoe::cli
