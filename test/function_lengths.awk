# Prints every function of 80 lines or more (120 in cuda/) as file:line. A function is a block whose head holds a parenthesis and is no namespace,
# type or test suite; blocks inside a function count to it. Strings, characters and comments are taken out first.

function start_file() { depth = 0; inside = 0; head = ""; comment = 0; raw = 0 }

function strip(line,    out) {
    if (comment) {
        if (!match(line, /\*\//)) return ""
        line = substr(line, RSTART + 2); comment = 0
    }
    if (raw) {
        if (!match(line, /\)[A-Za-z]*"/)) return ""
        line = substr(line, RSTART + RLENGTH); raw = 0
    }
    gsub(/\\\\/, "", line); gsub(/\\["']/, "", line)
    gsub(/R"[A-Za-z]*\([^)]*\)[A-Za-z]*"/, "\"\"", line)
    if (match(line, /R"[A-Za-z]*\(/)) { line = substr(line, 1, RSTART - 1); raw = 1 }
    gsub(/"[^"]*"/, "\"\"", line); gsub(/'[{}();]'/, "0", line)
    sub(/\/\/.*/, "", line)
    gsub(/\/\*[^*]*\*\//, "", line)
    if (match(line, /\/\*/)) { line = substr(line, 1, RSTART - 1); comment = 1 }
    return line
}

function opens_function(text) {
    gsub(/template *<[^>]*>+/, "", text); sub(/^[ \t]+/, "", text)
    return text ~ /\(/ && text !~ /^(inline |static |typedef )*(namespace|struct|class|enum|union|extern|TEST_SUITE)[^A-Za-z_]/
}

FNR == 1 { start_file() }
/^#/ { next }
{
    line = strip($0)
    for (i = 1; i <= length(line); ++i) {
        c = substr(line, i, 1)
        if (c == "{") {
            ++depth
            if (!inside && opens_function(head)) { inside = depth; first = FNR }
            head = ""
        } else if (c == "}") {
            if (inside == depth) {
                limit = FILENAME ~ /^cuda\// ? 120 : 80
                if (FNR - first + 1 >= limit) print FILENAME ":" first ": a function of " FNR - first + 1 " lines; functions have fewer than " limit
                inside = 0
            }
            --depth; head = ""
        } else if (c == ";" && !inside) {
            head = ""
        } else {
            head = head c
        }
    }
    head = head " "
}
