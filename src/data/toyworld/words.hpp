// The words of the toy world: every noun, adjective, verb and relation that corpus and tasks are made of.
//
// Few on purpose (about 600 with the function words): a SentencePiece vocabulary of 1,000 to 2,000 pieces then holds each as one piece. All
// lower case, ASCII. The order inside a table is part of the world: changing it changes the data of every seed.
#pragma once

#include <array>
#include <span>
#include <string_view>

namespace flanmoe::toyworld {

using Word = std::string_view;
using Words = std::span<const Word>;

/// Two words that belong together: opposites, singular and plural, present and past, ...
struct Pair {
    Word first, second;
};

inline constexpr Word women[] = {"anna", "clara", "emma", "grace", "iris", "kate", "maria", "olga", "rosa", "sara", "tina", "wanda"};
inline constexpr Word men[] = {"ben", "david", "felix", "henry", "jack", "leo", "noah", "paul", "sam", "tom", "victor", "carl"};
inline constexpr Word people[] = {"anna", "clara", "emma",  "grace", "iris", "kate", "maria", "olga", "rosa", "sara", "tina",   "wanda",
                                  "ben",  "david", "felix", "henry", "jack", "leo",  "noah",  "paul", "sam",  "tom",  "victor", "carl"};
inline constexpr Word towns[] = {"ruma", "tolen", "arka", "bervin", "salto", "mirka", "ostia", "kelm"};
inline constexpr Word places[] = {"mill",    "park",    "garden", "market", "harbor", "forest",
                                  "library", "station", "school", "museum", "tower",  "kitchen"};
inline constexpr Word jobs[] = {"baker",  "singer", "farmer", "teacher", "doctor",   "painter",
                                "sailor", "tailor", "hunter", "miller",  "gardener", "smith"};

inline constexpr Word animals[] = {"dog", "cat", "horse", "cow", "sheep", "goat", "duck", "hen", "fox", "bear", "wolf", "mouse", "frog", "owl"};
inline constexpr Word fruits[] = {"apple", "pear", "fig", "plum", "lemon", "cherry", "grape", "peach"};
inline constexpr Word clothes[] = {"hat", "coat", "shirt", "shoe", "scarf", "glove", "belt", "dress"};
inline constexpr Word tools[] = {"hammer", "saw", "rake", "knife", "needle", "rope", "brush", "axe"};
inline constexpr Word instruments[] = {"drum", "flute", "violin", "harp", "guitar", "bell", "horn", "piano"};
inline constexpr Word vehicles[] = {"boat", "train", "cart", "bus", "sled", "truck", "plane", "bike"};
inline constexpr Word colors[] = {"red", "blue", "green", "yellow", "black", "white", "brown", "gray", "pink", "orange"};
/// Things that a person can have, lose or give.
inline constexpr Word things[] = {"hat",  "coat", "scarf", "glove",  "belt", "rake", "knife", "needle", "rope", "brush", "axe",   "drum",
                                  "harp", "bell", "horn",  "guitar", "sled", "bike", "cart",  "book",   "lamp", "ring",  "spoon", "kite"};

struct Kind {
    Word name;
    Words members;
};
inline constexpr Kind kinds[] = {{"animal", animals}, {"fruit", fruits},           {"clothing", clothes}, {"tool", tools},
                                 {"color", colors},   {"instrument", instruments}, {"vehicle", vehicles}, {"job", jobs}};

inline constexpr Word days[] = {"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"};
inline constexpr Word months[] = {"january", "february", "march",     "april",   "may",      "june",
                                  "july",    "august",   "september", "october", "november", "december"};
inline constexpr Word letters[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m",
                                   "n", "o", "p", "q", "r", "s", "t", "u", "v", "w", "x", "y", "z"};
inline constexpr Word number_words[] = {"zero",     "one",     "two",     "three",     "four",     "five",     "six",
                                        "seven",    "eight",   "nine",    "ten",       "eleven",   "twelve",   "thirteen",
                                        "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"};
inline constexpr Word ordinals[] = {"first", "second", "third", "fourth", "fifth"};

inline constexpr Pair opposites[] = {{"big", "small"}, {"hot", "cold"},    {"old", "young"},   {"fast", "slow"},
                                     {"happy", "sad"}, {"clean", "dirty"}, {"rich", "poor"},   {"strong", "weak"},
                                     {"wet", "dry"},   {"loud", "quiet"},  {"heavy", "light"}, {"full", "empty"},
                                     {"brave", "shy"}, {"kind", "cruel"},  {"tall", "short"},  {"sharp", "dull"}};
/// Both sides of `opposites`; word i's opposite is word i ^ 1.
inline constexpr Word adjectives[] = {"big",   "small", "hot",   "cold",   "old",  "young", "fast", "slow",  "happy", "sad",   "clean",
                                      "dirty", "rich",  "poor",  "strong", "weak", "wet",   "dry",  "loud",  "quiet", "heavy", "light",
                                      "full",  "empty", "brave", "shy",    "kind", "cruel", "tall", "short", "sharp", "dull"};

inline constexpr Pair plurals[] = {{"dog", "dogs"},      {"cat", "cats"},       {"horse", "horses"}, {"cow", "cows"},        {"sheep", "sheep"},
                                   {"goat", "goats"},    {"wolf", "wolves"},    {"mouse", "mice"},   {"fox", "foxes"},       {"fig", "figs"},
                                   {"plum", "plums"},    {"pear", "pears"},     {"apple", "apples"}, {"cherry", "cherries"}, {"peach", "peaches"},
                                   {"hat", "hats"},      {"shoe", "shoes"},     {"knife", "knives"}, {"dress", "dresses"},   {"bus", "buses"},
                                   {"scarf", "scarves"}, {"child", "children"}, {"man", "men"},      {"woman", "women"},     {"tooth", "teeth"},
                                   {"goose", "geese"},   {"egg", "eggs"},       {"coin", "coins"}};
/// Fruits and the like by number: what people gather, buy and eat.
inline constexpr Word countables[] = {"figs", "plums", "pears", "apples", "cherries", "peaches", "eggs", "coins", "hats", "shoes"};

inline constexpr Pair deeds[] = {{"walks", "walked"}, {"sings", "sang"},   {"sleeps", "slept"}, {"runs", "ran"},
                                 {"waits", "waited"}, {"swims", "swam"},   {"reads", "read"},   {"eats", "ate"},
                                 {"works", "worked"}, {"talks", "talked"}, {"sits", "sat"},     {"dances", "danced"}};
inline constexpr Pair acts[] = {{"sees", "saw"},     {"finds", "found"}, {"hears", "heard"}, {"follows", "followed"}, {"calls", "called"},
                                {"helps", "helped"}, {"meets", "met"},   {"knows", "knew"},  {"chases", "chased"},    {"likes", "liked"}};
inline constexpr Word chased[] = {"chased", "followed", "found", "called", "helped"};  ///< active and passive alike

inline constexpr Pair young[] = {{"dog", "puppy"}, {"cat", "kitten"}, {"horse", "foal"}, {"cow", "calf"},    {"sheep", "lamb"},
                                 {"goat", "kid"},  {"hen", "chick"},  {"bear", "cub"},   {"frog", "tadpole"}};
inline constexpr Pair sounds[] = {{"dog", "bark"},   {"cat", "meow"},  {"horse", "neigh"}, {"cow", "moo"},     {"sheep", "baa"},
                                  {"duck", "quack"}, {"wolf", "howl"}, {"owl", "hoot"},    {"mouse", "squeak"}};

/// Words of one group rhyme with one another and with no word of another group.
inline constexpr Word rhyme_at[] = {"cat", "hat", "bat"}, rhyme_og[] = {"dog", "frog", "log"}, rhyme_ing[] = {"ring", "king", "wing"},
                      rhyme_oat[] = {"boat", "coat", "goat"}, rhyme_air[] = {"bear", "pear", "chair"}, rhyme_ouse[] = {"mouse", "house", "blouse"},
                      rhyme_ake[] = {"rake", "cake", "lake"}, rhyme_ell[] = {"bell", "well", "shell"}, rhyme_ox[] = {"fox", "box", "rocks"},
                      rhyme_en[] = {"hen", "pen", "ten"}, rhyme_un[] = {"sun", "run", "bun"}, rhyme_ed[] = {"red", "bed", "sled"};
inline constexpr Words rhymes[] = {rhyme_at,  rhyme_og,  rhyme_ing, rhyme_oat, rhyme_air, rhyme_ouse,
                                   rhyme_ake, rhyme_ell, rhyme_ox,  rhyme_en,  rhyme_un,  rhyme_ed};

/// Short words, three to five letters, for spelling.
inline constexpr Word short_words[] = {"dog",  "cat",  "cow",  "goat", "duck", "hen", "fox",  "bear", "wolf", "frog", "owl",  "fig",  "plum",
                                       "pear", "hat",  "coat", "shoe", "belt", "saw", "rake", "rope", "axe",  "drum", "harp", "bell", "horn",
                                       "boat", "cart", "bus",  "sled", "bike", "red", "blue", "mill", "park", "ring", "kite", "lamp", "big",
                                       "hot",  "cold", "old",  "fast", "slow", "sad", "wet",  "dry",  "loud", "tall", "weak"};

/// What is judged, and words of praise, blame and plain report.
inline constexpr Word judged[] = {"soup", "song", "story", "room", "bread", "show", "trip", "meal", "market", "garden", "guide", "cook"};
inline constexpr Word praise[] = {"great", "lovely", "perfect", "superb", "charming", "splendid", "delightful", "good"};
inline constexpr Word blame[] = {"awful", "boring", "terrible", "bad", "horrible", "nasty", "poor", "dreadful"};
inline constexpr Word plain[] = {"new", "local", "usual", "long", "small", "old", "round", "wooden"};
inline constexpr Word sentiments[] = {"positive", "negative", "neutral", "mixed"};

/// The invented language: a dictionary; the grammar is in language.cpp.
inline constexpr Pair invented_nouns[] = {{"dog", "zib"},     {"cat", "mofa"},     {"horse", "keltu"},  {"cow", "bruna"},
                                          {"fox", "sivo"},    {"wolf", "garu"},    {"owl", "hupi"},     {"bear", "dolmo"},
                                          {"baker", "panix"}, {"sailor", "navek"}, {"doctor", "medul"}, {"farmer", "terok"}};
inline constexpr Pair invented_adjectives[] = {{"red", "rova"},   {"blue", "lazu"}, {"black", "noka"}, {"white", "biva"}, {"big", "grano"},
                                               {"small", "piti"}, {"old", "senu"},  {"young", "juvi"}, {"happy", "felo"}, {"sad", "trisu"}};
inline constexpr Pair invented_deeds[] = {{"sleeps", "dormik"}, {"sings", "kantik"}, {"runs", "kurik"},  {"waits", "sperik"},
                                          {"swims", "natik"},   {"eats", "manik"},   {"works", "borik"}, {"dances", "balik"}};
inline constexpr Pair invented_acts[] = {{"sees", "vidok"},    {"finds", "trovok"}, {"hears", "audok"},
                                         {"follows", "segok"}, {"calls", "vokok"},  {"helps", "jutok"}};

}  // namespace flanmoe::toyworld
