# What the command line itself refuses, and help.
refuse 64 'needs a command: .*config' "$FLANMOE"
refuse 64 'has no command cofnig \(did you mean config\?\)' "$FLANMOE" cofnig
refuse 64 'unknown option --sett of flanmoe config \(did you mean --set\?\)' "$FLANMOE" config --sett a.b=1
refuse 64 'unknown option --versoin of flanmoe \(did you mean --version\?\)' "$FLANMOE" --versoin
refuse 64 'KEY=VALUE' "$FLANMOE" config --set
expect 0 '^flanmoe [0-9]+\.[0-9]+' "$FLANMOE" --version
expect 0 'Subcommands' "$FLANMOE" --help

# Every subcommand, and every subcommand of those, has help with an example.
subcommands() { "$FLANMOE" "$@" --help | awk '/^Subcommands:/ { on = 1; next } /^[^ ]/ { on = 0 } on && /^  [a-z]/ { print $1 }'; }
commands=$(subcommands)
[[ $commands == *config* ]] || expect 0 'the list of subcommands' true
for command in $commands; do
    inner=$(subcommands "$command")
    [ -n "$inner" ] || expect 0 '^Example' "$FLANMOE" "$command" --help
    for second in $inner; do expect 0 '^Example' "$FLANMOE" "$command" "$second" --help; done
done
