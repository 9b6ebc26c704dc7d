# What the command line itself refuses, and help.
refuse 64 'a command is missing; there are .*config' "$FLANMOE"
refuse 64 'unknown command cofnig \(did you mean config\?\); there are .*tokenizer' "$FLANMOE" cofnig
refuse 64 'data: a command is missing; there are .*shard' "$FLANMOE" data
refuse 64 'data: unknown command shrad \(did you mean shard\?\)' "$FLANMOE" data shrad
refuse 64 'config: unknown option --sett \(did you mean --set\?\); see flanmoe config --help' "$FLANMOE" config --sett a.b=1
refuse 64 'unknown option --versoin \(did you mean --version\?\)' "$FLANMOE" --versoin
refuse 64 'inspect: unexpected argument b' "$FLANMOE" inspect a b
refuse 64 'config: .*--set' "$FLANMOE" config --set
refuse 64 'tokenizer train: .*--size = abc' "$FLANMOE" tokenizer train text --out v --size abc
refuse 64 'data shard: --tokenizer is required' "$FLANMOE" data shard text
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
