// A lexer that knows text and tags, and a recursive-descent parser with Jinja's order of operators.
#include "data/templates/syntax.hpp"

#include "core/error.hpp"
#include "core/nearest.hpp"
#include "data/strings.hpp"
#include "data/templates/characters.hpp"
#include "data/templates/functions.hpp"

#include <algorithm>

namespace flanmoe::templates {

namespace {

using Kind = Expression::Kind;

struct Token {
    enum class Kind : uint8_t { text, number, real, name, symbol, end } kind = Kind::end;
    std::string text;
};

/// What is wrong, without the place.
struct Refusal {
    std::string what;
};

bool is_name(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

// What a backslash and the character stand for, as in Python: both, if it has no meaning.
std::string unescaped(char c) {
    constexpr std::string_view letters = "ntrabfv\\'\"", meanings = "\n\t\r\a\b\f\v\\'\"";
    if (const size_t place = letters.find(c); place != std::string_view::npos) return std::string(1, meanings[place]);
    if (std::isdigit(static_cast<unsigned char>(c)) || std::string_view("xuUN\n").find(c) != std::string_view::npos)
        throw Refusal{fmt::format("a text has '\\{}', an escape that is not supported; write the character itself", c == '\n' ? ' ' : c)};
    return std::string("\\") + c;
}

int64_t number(const std::string& digits) {
    if (digits.size() > 18) throw Refusal{fmt::format("the number {} is too large", digits)};
    return std::stoll(digits);
}

// Tokens between the braces of one tag.
std::vector<Token> tokens_of(std::string_view code) {
    std::vector<Token> tokens;
    for (size_t at = 0; at < code.size();) {
        const char c = code[at];
        if (std::isspace(static_cast<unsigned char>(c))) {
            ++at;
        } else if (c == '"' || c == '\'') {
            std::string text;
            for (++at; at < code.size() && code[at] != c; ++at) {
                if (code[at] == '\\' && at + 1 < code.size())
                    text += unescaped(code[++at]);
                else
                    text += code[at];
            }
            if (at++ >= code.size()) throw Refusal{"a text is not closed"};
            tokens.push_back({Token::Kind::text, text});
        } else if (std::isdigit(static_cast<unsigned char>(c))) {
            size_t end = at;
            while (end < code.size() && std::isdigit(static_cast<unsigned char>(code[end]))) ++end;
            // "options.1" is an item, not the number .1
            const bool item = !tokens.empty() && tokens.back().text == "." && tokens.back().kind == Token::Kind::symbol;
            bool real = false;
            if (!item && end + 1 < code.size() && code[end] == '.' && std::isdigit(static_cast<unsigned char>(code[end + 1])))
                for (real = true, ++end; end < code.size() && std::isdigit(static_cast<unsigned char>(code[end]));) ++end;
            tokens.push_back({real ? Token::Kind::real : Token::Kind::number, std::string(code.substr(at, end - at))});
            at = end;
        } else if (is_name(c)) {
            size_t end = at;
            while (end < code.size() && is_name(code[end])) ++end;
            tokens.push_back({Token::Kind::name, std::string(code.substr(at, end - at))});
            at = end;
        } else {
            const std::string_view two = code.substr(at, 2);
            const bool pair = two == "==" || two == "!=" || two == "<=" || two == ">=" || two == "//" || two == "**";
            if (!pair && std::string_view("+-*/%~.,:()[]{}|<>=").find(c) == std::string_view::npos) throw Refusal{fmt::format("'{}' is not understood", c)};
            tokens.push_back({Token::Kind::symbol, std::string(code.substr(at, pair ? 2 : 1))});
            at += pair ? 2 : 1;
        }
    }
    tokens.push_back({});
    return tokens;
}

Expression make(Kind kind, std::string name, std::vector<Expression> parts) {
    Expression e;
    e.kind = kind;
    e.name = std::move(name);
    e.parts = std::move(parts);
    return e;
}

Expression literal(DataValue value) {
    Expression e;
    e.literal = std::move(value);
    return e;
}

class ExpressionParser {
public:
    explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

    bool at_end() const { return tokens_[at_].kind == Token::Kind::end; }
    bool take(std::string_view symbol) {
        const bool found = !at_end() && tokens_[at_].kind != Token::Kind::text && tokens_[at_].text == symbol;
        at_ += found;
        return found;
    }
    void expect(std::string_view symbol) {
        if (!take(symbol)) throw Refusal{fmt::format("'{}' is expected before '{}'", symbol, at_end() ? "the end of the tag" : tokens_[at_].text)};
    }
    std::string name() {
        if (tokens_[at_].kind != Token::Kind::name) throw Refusal{fmt::format("a name is expected before '{}'", at_end() ? "the end of the tag" : tokens_[at_].text)};
        return tokens_[at_++].text;
    }
    void finish() {
        if (!at_end()) throw Refusal{fmt::format("'{}' is not understood there", tokens_[at_].text)};
    }

    Expression expression() {
        Expression value = either();
        while (take("if")) {
            Expression condition = either();
            value = make(Kind::conditional, "", {std::move(condition), std::move(value)});
            if (take("else")) value.parts.push_back(expression());
        }
        return value;
    }
    /// One that is not followed by "if".
    Expression unconditional() { return either(); }

private:
    template <class Next>
    Expression chain(Next next, std::initializer_list<std::string_view> symbols) {
        Expression value = next();
        for (;;) {
            const auto found = std::find_if(symbols.begin(), symbols.end(), [&](std::string_view symbol) { return take(symbol); });
            if (found == symbols.end()) return value;
            Expression right = next();
            value = make(Kind::binary, std::string(*found), {std::move(value), std::move(right)});
        }
    }
    Expression either() {
        return chain([&] { return both(); }, {"or"});
    }
    Expression both() {
        return chain([&] { return inverted(); }, {"and"});
    }
    Expression inverted() {
        if (take("not")) return make(Kind::invert, "", {inverted()});
        return comparison();
    }
    Expression comparison() {
        static constexpr const char* symbols[] = {"==", "!=", "<=", ">=", "<", ">", "in", "not"};
        Expression all = make(Kind::comparison, "", {});
        all.parts.push_back(sum());
        for (;;) {
            const auto found = std::find_if(std::begin(symbols), std::end(symbols), [&](const char* symbol) { return take(symbol); });
            if (found == std::end(symbols)) break;
            const bool negated = *found == std::string_view("not");
            if (negated) expect("in");
            all.keywords.emplace_back(negated ? "not in" : *found);
            all.parts.push_back(sum());
        }
        return all.keywords.empty() ? all.parts[0] : all;
    }
    Expression sum() {
        return chain([&] { return concatenation(); }, {"+", "-"});
    }
    Expression concatenation() {
        return chain([&] { return product(); }, {"~"});
    }
    Expression product() {
        return chain([&] { return filtered(); }, {"*", "//", "/", "%"});
    }
    // A minus sign binds more tightly than filters.
    Expression unary() {
        if (take("-")) return postfix(make(Kind::negate, "", {unary()}));
        return postfix(primary());
    }
    // Filters bind more tightly than other operators.
    Expression filtered() {
        Expression value = unary();
        for (;;) {
            if (take("|")) {
                std::string filter = name();
                if (!known_filter(filter))
                    throw Refusal{fmt::format("there is no filter '{}'{}", filter, suggestion(filter, filter_names()))};
                value = make(Kind::filter, filter, {std::move(value)});
                if (take("(")) arguments(value);
                check_arguments("filter", value);
            } else if (take("is")) {
                const bool inverse = take("not");
                const std::string test = name();
                if (test == "none")
                    value = make(Kind::binary, "==", {std::move(value), literal({})});
                else if (test == "defined" || test == "undefined")
                    value = make(Kind::defined, "", {std::move(value)});
                else
                    throw Refusal{fmt::format("there is no test 'is {}'; there are: defined, undefined, none", test)};
                if (inverse != (test == "undefined")) value = make(Kind::invert, "", {std::move(value)});
            } else {
                return value;
            }
        }
    }
    // Arguments that would be computed otherwise than Jinja does, or not at all, are refused when the template is read.
    static void check_arguments(const std::string& kind, const Expression& call) {
        const size_t values = call.parts.size() - 1 - call.keywords.size();
        std::string wrong = refusal_of_arguments(kind, call.name, values, call.keywords);
        if (wrong.empty() && kind == "filter" && call.name == "map" && values > 0 && call.parts[1].literal.text())
            wrong = refusal_of_arguments(kind, *call.parts[1].literal.text(), values - 1, call.keywords);
        if (!wrong.empty()) throw Refusal{wrong};
    }
    void arguments(Expression& call) {
        while (!take(")")) {
            if (tokens_[at_].kind == Token::Kind::name && tokens_[at_ + 1].text == "=" && tokens_[at_ + 1].kind == Token::Kind::symbol) {
                call.keywords.push_back(name());
                expect("=");
            } else if (!call.keywords.empty()) {
                throw Refusal{"an argument without a name stands behind one with a name"};
            }
            call.parts.push_back(expression());
            if (!take(",")) {
                expect(")");
                return;
            }
        }
    }
    Expression postfix(Expression value) {
        for (;;) {
            if (take(".")) {
                if (tokens_[at_].kind == Token::Kind::number) {
                    value = make(Kind::item, "", {std::move(value), literal(number(tokens_[at_++].text))});
                    continue;
                }
                const std::string member = name();
                if (take("(")) {
                    if (!known_method(member)) throw Refusal{fmt::format("there is no method '{}'{}", member, suggestion(member, method_names()))};
                    value = make(Kind::call, member, {std::move(value)});
                    arguments(value);
                    check_arguments("method", value);
                } else if (std::find(std::begin(python_methods), std::end(python_methods), member) != std::end(python_methods)) {
                    throw Refusal{fmt::format("'.{}' is a method of every object in Jinja; write ['{}'] for the member, or {}() to call it", member, member, member)};
                } else {
                    value = make(Kind::member, member, {std::move(value)});
                }
            } else if (take("[")) {
                value = subscript(std::move(value));
            } else {
                return value;
            }
        }
    }
    Expression subscript(Expression value) {
        Expression from = literal({});
        if (!take(":")) {
            from = expression();
            if (take("]")) return make(Kind::item, "", {std::move(value), std::move(from)});
            expect(":");
        }
        Expression to = literal({});
        if (!take("]")) {
            to = expression();
            expect("]");
        }
        return make(Kind::slice, "", {std::move(value), std::move(from), std::move(to)});
    }
    Expression primary() {
        const Token token = tokens_[at_];
        if (token.kind == Token::Kind::text) {
            std::string text;
            while (tokens_[at_].kind == Token::Kind::text) text += tokens_[at_++].text;
            return literal(text);
        }
        if (token.kind == Token::Kind::number) return ++at_, literal(number(token.text));
        if (token.kind == Token::Kind::real) return ++at_, literal(std::stod(token.text));
        if (take("(")) return parenthesis();
        if (take("[")) return sequence(Kind::list, "]");
        if (take("{")) return sequence(Kind::dictionary, "}");
        const std::string word = name();
        if (word == "true" || word == "True") return literal(true);
        if (word == "false" || word == "False") return literal(false);
        if (word == "none" || word == "None") return literal({});
        if (!take("(")) return make(Kind::name, word, {});
        if (!known_function(word)) throw Refusal{fmt::format("there is no function '{}'; there are: range, zip", word)};
        Expression call = make(Kind::call, word, {literal({})});
        arguments(call);
        check_arguments("function", call);
        return call;
    }
    // A parenthesis, or a tuple.
    Expression parenthesis() {
        Expression value = expression();
        if (take(")")) return value;
        expect(",");
        Expression list = make(Kind::list, "", {std::move(value)});
        while (!take(")")) {
            list.parts.push_back(expression());
            if (!take(",")) {
                expect(")");
                break;
            }
        }
        return list;
    }
    Expression sequence(Kind kind, std::string_view closing) {
        Expression all = make(kind, "", {});
        while (!take(closing)) {
            all.parts.push_back(expression());
            if (kind == Kind::dictionary) {
                expect(":");
                all.parts.push_back(expression());
            }
            if (!take(",")) {
                expect(closing);
                break;
            }
        }
        return all;
    }

    static constexpr std::string_view python_methods[] = {"clear", "copy", "fromkeys", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"};
    std::vector<Token> tokens_;
    size_t at_ = 0;
};

struct Piece {
    enum class Kind : uint8_t { text, output, tag } kind = Kind::text;
    std::string text;
    int64_t line = 1;
};

// End of the tag that begins at `from`, leaving texts in it alone.
size_t tag_end(std::string_view text, size_t from, std::string_view closing) {
    char quote = 0;
    int depth = 0;  // of a dictionary's braces
    for (size_t at = from; at < text.size(); ++at) {
        const char c = text[at];
        if (quote) {
            if (c == '\\')
                ++at;
            else if (c == quote)
                quote = 0;
        } else if (depth == 0 && text.substr(at, 2) == closing) {
            return at;
        } else if (c == '"' || c == '\'') {
            quote = c;
        } else {
            depth += c == '{' ? 1 : c == '}' ? -1 : 0;
        }
    }
    return std::string_view::npos;
}

// Text and tags in turn; comments are left out, white space is taken away where a minus sign says so.
std::vector<Piece> pieces_of(std::string_view text, int64_t& line) {
    std::vector<Piece> pieces;
    bool strip_next = false;
    for (size_t at = 0; at < text.size();) {
        size_t open = text.find('{', at);
        while (open != std::string_view::npos && (open + 1 >= text.size() || std::string_view("{%#").find(text[open + 1]) == std::string_view::npos))
            open = text.find('{', open + 1);
        std::string before(text.substr(at, open == std::string_view::npos ? open : open - at));
        if (strip_next) before = stripped(before, nullptr, true, false);
        const bool strip_before = open != std::string_view::npos && open + 2 < text.size() && text[open + 2] == '-';
        if (strip_before) before = stripped(before, nullptr, false, true);
        if (!before.empty()) pieces.push_back({Piece::Kind::text, before, line});
        if (open == std::string_view::npos) break;
        line += std::count(text.begin() + static_cast<std::ptrdiff_t>(at), text.begin() + static_cast<std::ptrdiff_t>(open), '\n');
        const char kind = text[open + 1];
        const std::string_view closing = kind == '{' ? "}}" : kind == '%' ? "%}" : "#}";
        const size_t begin = open + 2 + strip_before, close = kind == '#' ? text.find(closing, begin) : tag_end(text, begin, closing);
        if (close == std::string_view::npos) throw Refusal{fmt::format("'{}' is not closed", text.substr(open, 2))};
        strip_next = close > begin && text[close - 1] == '-';
        if (kind != '#') pieces.push_back({kind == '{' ? Piece::Kind::output : Piece::Kind::tag, std::string(text.substr(begin, close - begin - strip_next)), line});
        line += std::count(text.begin() + static_cast<std::ptrdiff_t>(open), text.begin() + static_cast<std::ptrdiff_t>(close), '\n');
        at = close + 2;
    }
    return pieces;
}

class StatementParser {
public:
    StatementParser(std::vector<Piece> pieces, int64_t& line) : pieces_(std::move(pieces)), line_(line) {}

    std::vector<Statement> all() {
        std::vector<Statement> body = block({});
        return body;
    }

private:
    // Statements until a tag that begins with one of the words, which stays in tag_.
    std::vector<Statement> block(const std::vector<std::string>& until) {
        std::vector<Statement> body;
        while (at_ < pieces_.size()) {
            Piece& piece = pieces_[at_++];
            line_ = piece.line;
            Statement s;
            if (piece.kind == Piece::Kind::text) {
                s.text = piece.text;
            } else if (piece.kind == Piece::Kind::output) {
                s.kind = Statement::Kind::output;
                s.tests.push_back(whole(piece.text));
            } else {
                tag_ = std::make_unique<ExpressionParser>(tokens_of(piece.text));
                word_ = tag_->name();
                if (std::find(until.begin(), until.end(), word_) != until.end()) return body;
                s = tag();
            }
            body.push_back(std::move(s));
        }
        if (!until.empty()) throw Refusal{fmt::format("'{{% {} %}}' is missing", until.back())};
        return body;
    }
    Statement tag() {
        if (word_ == "if") return branch();
        if (word_ == "for") return loop();
        if (word_ == "set") {
            Statement s;
            s.kind = Statement::Kind::set;
            s.text = tag_->name();
            tag_->expect("=");
            s.tests.push_back(tag_->expression());
            tag_->finish();
            return s;
        }
        throw Refusal{fmt::format("'{{% {} %}}' is not among the tags that are supported (if, elif, else, endif, for, endfor, set)", word_)};
    }
    Statement branch() {
        Statement s;
        s.kind = Statement::Kind::branch;
        s.tests.push_back(tag_->expression());
        tag_->finish();
        for (;;) {
            s.bodies.push_back(block({"elif", "else", "endif"}));
            if (word_ == "elif") {
                s.tests.push_back(tag_->expression());
                tag_->finish();
            } else if (word_ == "else") {
                s.bodies.push_back(block({"endif"}));
                return s;
            } else {
                return s;
            }
        }
    }
    Statement loop() {
        Statement s;
        s.kind = Statement::Kind::loop;
        do s.names.push_back(tag_->name());
        while (tag_->take(","));
        tag_->expect("in");
        s.tests.push_back(tag_->unconditional());
        if (tag_->take("if")) s.tests.push_back(tag_->expression());
        tag_->finish();
        s.bodies.push_back(block({"endfor"}));
        return s;
    }
    static Expression whole(const std::string& code) {
        ExpressionParser parser(tokens_of(code));
        Expression e = parser.expression();
        parser.finish();
        return e;
    }

    std::vector<Piece> pieces_;
    int64_t& line_;
    size_t at_ = 0;
    std::unique_ptr<ExpressionParser> tag_;
    std::string word_;
};

}  // namespace

std::vector<Statement> parse(std::string_view text, const std::string& origin) {
    const std::string unified = replaced(replaced(text, "\r\n", "\n"), "\r", "\n");  // as Jinja does, which also takes the last line break away
    text = unified;
    if (text.ends_with('\n')) text.remove_suffix(1);
    int64_t line = 1;
    try {
        std::vector<Piece> pieces = pieces_of(text, line);
        line = 1;
        return StatementParser(std::move(pieces), line).all();
    } catch (const Refusal& refusal) {
        fail(Exit::bad_data, "{}, line {} of the template: {}; write it without that (src/data/templates/template.hpp says what there is)", origin, line, refusal.what);
    }
}

}  // namespace flanmoe::templates
