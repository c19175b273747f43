"""Questions about the reference of the Python language, each with words that only a chunk with the answer holds.

Written by hand. The questions of `SAME` use words of their answers, as people do who know the documentation; those of
`OTHER` say it in other words, as people do who do not.
"""

SAME = (
    (
        "what does __new__ have to return",
        'return value of "__new__()" should be the new object instance',
    ),
    (
        "when is __del__ called",
        "Called when the instance is about to be destroyed",
    ),
    (
        "difference between __getattr__ and __getattribute__",
        "Called unconditionally to implement attribute accesses",
    ),
    (
        "which hash value must objects have that compare equal",
        "objects which compare equal have the same hash",
    ),
    (
        "what are __slots__ good for",
        "The space saved over using",
    ),
    (
        "how is the metaclass of a class determined",
        "the most derived metaclass is selected",
    ),
    (
        "what does __set_name__ do",
        "Automatically called at the time the owning class *owner*",
    ),
    (
        "what does __init_subclass__ do",
        "This method is called whenever the containing class is subclassed",
    ),
    (
        "what is __class_getitem__ for",
        "parameterization of a standard generic class|to implement generic classes",
    ),
    (
        "when is __missing__ called",
        "when key is not in the dictionary|if the key *key* is not present",
    ),
    (
        "how do I write an asynchronous context manager",
        "asynchronous context manager* is a *context manager* that is able",
    ),
    (
        "what does the match statement do with a wildcard pattern",
        "A wildcard pattern always succeeds",
    ),
    (
        "what is a capture pattern",
        "A capture pattern binds the subject value to a name",
    ),
    (
        "order in which decorators are evaluated",
        "Decorator expressions are evaluated when the function is defined",
    ),
    (
        "when are default parameter values evaluated",
        "Default parameter values are evaluated from left to right",
    ),
    (
        "what does except* do",
        'except*" clause(s)" are used for handling|used for handling "ExceptionGroup"s',
    ),
    (
        "when is the else clause of a try statement executed",
        'optional "else" clause is executed if the control flow',
    ),
    (
        "what happens with a return in a finally clause",
        'finally" clause executes a "return"|return" statement in',
    ),
    (
        "what does nonlocal do",
        "refer to previously bound variables in the nearest enclosing scope",
    ),
    (
        "what does from __future__ import do",
        "future statement* is a directive to the compiler",
    ),
    (
        "how are names with two leading underscores mangled",
        "Private name mangling",
    ),
    (
        "what do precedence and associativity of operators look like",
        "from highest precedence",
    ),
    (
        "chained comparisons such as a < b < c",
        "Comparisons can be chained arbitrarily",
    ),
    (
        "what does raise from None do",
        "Exception chaining can be explicitly suppressed",
    ),
    (
        "what does the assert statement do when optimization is requested",
        "no code for an assert statement when",
    ),
    (
        "which escape sequences exist in string literals",
        "Character with 16-bit hex value",
    ),
    (
        "underscores in numeric literals",
        "Underscores are ignored for determining the numeric value",
    ),
    (
        "format specification for thousands separator",
        "signals the use of a comma for a thousands separator",
    ),
    (
        "what does the # option of the format specification do",
        "causes the “alternate form” to be used",
    ),
    (
        "how do I set a conditional breakpoint in pdb",
        "it is an expression which must evaluate to true before the breakpoint",
    ),
    (
        "pdb command to continue until a line",
        "With *lineno*, continue execution until a line",
    ),
)

OTHER = (
    (
        "why does my object never get cleaned up",
        "possible for a reference cycle to prevent the reference count",
    ),
    (
        "make instances usable as keys of a dictionary",
        'creating *hashable* objects which|should not implement "__hash__()"',
    ),
    (
        "my class should be callable like a function",
        "Called when the instance is “called” as a function",
    ),
    (
        "let my own collection be walked over with a loop",
        "method is called when an *iterator* is required",
    ),
    (
        "text that a developer sees for an object in the interpreter",
        "compute the “official” string representation",
    ),
    (
        "intercept reading of a field that does not exist",
        "Called when the default attribute access fails with",
    ),
    (
        "reduce the memory that many small objects need",
        "The space saved over using",
    ),
    (
        "how does a with block learn that something went wrong in it",
        "exception that caused the context to be exited",
    ),
    (
        "swallow an error when leaving a with block",
        "wishes to suppress the exception",
    ),
    (
        "why is a list as a default argument shared between calls",
        "This is especially important to understand when a default",
    ),
    (
        "force callers to pass an argument by its name",
        "keyword-only parameters",
    ),
    (
        "accept any number of arguments",
        'excess positional arguments|"*identifier"',
    ),
    (
        "run some code whether or not there was an error",
        "specifies a ‘cleanup’ handler",
    ),
    (
        "jump out of a loop early",
        "It terminates the nearest enclosing loop",
    ),
    (
        "skip the rest of this round of the loop",
        "continues with the next cycle of the nearest enclosing loop",
    ),
    (
        "placeholder where a statement is needed but nothing should happen",
        "it is useful as a placeholder when a statement is",
    ),
    (
        "change a variable of the module from inside a function",
        "listed identifiers are to be interpreted as globals",
    ),
    (
        "small function without a name",
        "used to create anonymous functions|yields a function object",
    ),
    (
        "how can a function hand out many values one after the other",
        "used when defining a *generator* function|is called a *generator function*",
    ),
    (
        "check that two variables are the very same object",
        "test for an object’s identity",
    ),
    (
        "which values count as false",
        "constants defined to be false",
    ),
    (
        "take part of a list from one position to another",
        "slice of *s* from *i* to *j*",
    ),
    (
        "remove spaces at both ends of a text",
        "leading and trailing characters removed",
    ),
    (
        "split text at each line end",
        "Return a list of the lines in the string, breaking at line boundaries",
    ),
    (
        "caseless matching of international text",
        "Casefolding is similar to lowercasing",
    ),
    (
        "pad a number with zeros on the left",
        "left filled with ASCII \"'0'\"|sign-aware zero-padding",
    ),
    (
        "show a number as a percentage",
        "Percentage. Multiplies the number by 100",
    ),
    (
        "print doubled braces in a template for text",
        "need to include a brace character in the literal text",
    ),
    (
        "combine two dictionaries into a new one",
        "Create a new dictionary with the merged keys",
    ),
    (
        "get a value from a dictionary or something else if there is none",
        "else *default*. If *default* is not given",
    ),
    (
        "are dictionaries kept in the order of insertion",
        "Dictionaries preserve insertion order",
    ),
    (
        "put several items at the end of a list",
        "extends *s* with the contents of",
    ),
    (
        "why do all the rows of my matrix change together",
        "items in the sequence *s* are not copied",
    ),
    (
        "integer division rounds to which side",
        "Floor division|rounded towards minus infinity|floor division of integers",
    ),
    (
        "names that a module offers to whoever imports everything from it",
        "public names* defined by a module",
    ),
    (
        "why is code at the top of a class not visible in its methods",
        "does not extend to the code blocks of methods",
    ),
    (
        "import a sibling module of the same package",
        "leading dots in the specified module",
    ),
    (
        "stop the program at this line and look at the variables",
        "typical usage to break into the debugger",
    ),
    (
        "what went wrong and where, after the program crashed",
        "post-mortem debugging",
    ),
    (
        "number with a real and a part that is multiplied by the root of minus one",
        "imaginary literal yields a complex number",
    ),
)
