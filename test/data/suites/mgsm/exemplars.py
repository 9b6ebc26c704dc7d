"""Exemplars in the layout of MGSM, made up for tests."""

MGSM_EXEMPLARS = {
    "en": {
        "1": {
            "q": "Question: How m"
                 "any are 1 and 2?",
            "a":
                "Step-by-Step Answer: 1 + 2 = 3. The answer is 3."
        },
        "2": {
            "q": "Question: How m"
                 "any are 2 and 2?",
            "a":
                "Step-by-Step Answer: 2 + 2 = 4. The answer is 4."
        },
        "3": {
            "q": "Question: How m"
                 "any are 3 and 2?",
            "a":
                "Step-by-Step Answer: 3 + 2 = 5. The answer is 5."
        },
        "4": {
            "q": "Question: How m"
                 "any are 4 and 2?",
            "a":
                "Step-by-Step Answer: 4 + 2 = 6. The answer is 6."
        },
        "5": {
            "q": "Question: How m"
                 "any are 5 and 2?",
            "a":
                "Step-by-Step Answer: 5 + 2 = 7. The answer is 7."
        },
        "6": {
            "q": "Question: How m"
                 "any are 6 and 2?",
            "a":
                "Step-by-Step Answer: 6 + 2 = 8. The answer is 8."
        },
        "7": {
            "q": "Question: How m"
                 "any are 7 and 2?",
            "a":
                "Step-by-Step Answer: 7 + 2 = 9. The answer is 9."
        },
        "8": {
            "q": "Question: How m"
                 "any are 8 and 2?",
            "a":
                "Step-by-Step Answer: 8 + 2 = 10. The answer is 10."
        },
    },
    "de": {
        "1": {
            "q": "Frage: Wie vie"
                 "l sind 1 und 2?",
            "a":
                "Schritt-für-Schritt-Antwort: 1 + 2 = 3. Die Antwort lautet 3."
        },
        "2": {
            "q": "Frage: Wie vie"
                 "l sind 2 und 2?",
            "a":
                "Schritt-für-Schritt-Antwort: 2 + 2 = 4. Die Antwort lautet 4."
        },
        "3": {
            "q": "Frage: Wie vie"
                 "l sind 3 und 2?",
            "a":
                "Schritt-für-Schritt-Antwort: 3 + 2 = 5. Die Antwort lautet 5."
        },
        "4": {
            "q": "Frage: Wie vie"
                 "l sind 4 und 2?",
            "a":
                "Schritt-für-Schritt-Antwort: 4 + 2 = 6. Die Antwort lautet 6."
        },
        "5": {
            "q": "Frage: Wie vie"
                 "l sind 5 und 2?",
            "a":
                "Schritt-für-Schritt-Antwort: 5 + 2 = 7. Die Antwort lautet 7."
        },
        "6": {
            "q": "Frage: Wie vie"
                 "l sind 6 und 2?",
            "a":
                "Schritt-für-Schritt-Antwort: 6 + 2 = 8. Die Antwort lautet 8."
        },
        "7": {
            "q": "Frage: Wie vie"
                 "l sind 7 und 2?",
            "a":
                "Schritt-für-Schritt-Antwort: 7 + 2 = 9. Die Antwort lautet 9."
        },
        "8": {
            "q": "Frage: Wie vie"
                 "l sind 8 und 2?",
            "a":
                "Schritt-für-Schritt-Antwort: 8 + 2 = 10. Die Antwort lautet 10."
        },
    },
    "ja": {
        "1": {
            "q": "\u554f\u984c\uff1a1\u30682\u3067\u3044\u304f\u3064\u3067\u3059\u304b\uff1f"
                 "",
            "a":
                "\u30b9\u30c6\u30c3\u30d7\u3054\u3068\u306e\u7b54\u3048\uff1a1 + 2 = 3\u3002\u7b54\u3048\u306f3\u3067\u3059\u3002"
        },
        "2": {
            "q": "\u554f\u984c\uff1a2\u30682\u3067\u3044\u304f\u3064\u3067\u3059\u304b\uff1f"
                 "",
            "a":
                "\u30b9\u30c6\u30c3\u30d7\u3054\u3068\u306e\u7b54\u3048\uff1a2 + 2 = 4\u3002\u7b54\u3048\u306f4\u3067\u3059\u3002"
        },
        "3": {
            "q": "\u554f\u984c\uff1a3\u30682\u3067\u3044\u304f\u3064\u3067\u3059\u304b\uff1f"
                 "",
            "a":
                "\u30b9\u30c6\u30c3\u30d7\u3054\u3068\u306e\u7b54\u3048\uff1a3 + 2 = 5\u3002\u7b54\u3048\u306f5\u3067\u3059\u3002"
        },
        "4": {
            "q": "\u554f\u984c\uff1a4\u30682\u3067\u3044\u304f\u3064\u3067\u3059\u304b\uff1f"
                 "",
            "a":
                "\u30b9\u30c6\u30c3\u30d7\u3054\u3068\u306e\u7b54\u3048\uff1a4 + 2 = 6\u3002\u7b54\u3048\u306f6\u3067\u3059\u3002"
        },
        "5": {
            "q": "\u554f\u984c\uff1a5\u30682\u3067\u3044\u304f\u3064\u3067\u3059\u304b\uff1f"
                 "",
            "a":
                "\u30b9\u30c6\u30c3\u30d7\u3054\u3068\u306e\u7b54\u3048\uff1a5 + 2 = 7\u3002\u7b54\u3048\u306f7\u3067\u3059\u3002"
        },
        "6": {
            "q": "\u554f\u984c\uff1a6\u30682\u3067\u3044\u304f\u3064\u3067\u3059\u304b\uff1f"
                 "",
            "a":
                "\u30b9\u30c6\u30c3\u30d7\u3054\u3068\u306e\u7b54\u3048\uff1a6 + 2 = 8\u3002\u7b54\u3048\u306f8\u3067\u3059\u3002"
        },
        "7": {
            "q": "\u554f\u984c\uff1a7\u30682\u3067\u3044\u304f\u3064\u3067\u3059\u304b\uff1f"
                 "",
            "a":
                "\u30b9\u30c6\u30c3\u30d7\u3054\u3068\u306e\u7b54\u3048\uff1a7 + 2 = 9\u3002\u7b54\u3048\u306f9\u3067\u3059\u3002"
        },
        "8": {
            "q": "\u554f\u984c\uff1a8\u30682\u3067\u3044\u304f\u3064\u3067\u3059\u304b\uff1f"
                 "",
            "a":
                "\u30b9\u30c6\u30c3\u30d7\u3054\u3068\u306e\u7b54\u3048\uff1a8 + 2 = 10\u3002\u7b54\u3048\u306f10\u3067\u3059\u3002"
        },
    },
}
