//! The demo's language: a small grammar with four domains, and the items that ask for each.
//!
//! **Invariant:** whether a sentence is held out is decided by a digest of what it asks, so training and test never
//! share one whatever the seed; [`super::overlap`] counts all the same.

use fineline_format::Digest;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

const NOUNS: [(&str, &str); 16] = [
    ("dog", "dogs"),
    ("cat", "cats"),
    ("bird", "birds"),
    ("horse", "horses"),
    ("king", "kings"),
    ("farmer", "farmers"),
    ("doctor", "doctors"),
    ("teacher", "teachers"),
    ("girl", "girls"),
    ("boy", "boys"),
    ("sailor", "sailors"),
    ("painter", "painters"),
    ("singer", "singers"),
    ("driver", "drivers"),
    ("friend", "friends"),
    ("neighbor", "neighbors"),
];
const VERBS: [(&str, &str); 8] = [
    ("sleeps", "sleep"),
    ("sings", "sing"),
    ("runs", "run"),
    ("waits", "wait"),
    ("laughs", "laugh"),
    ("reads", "read"),
    ("works", "work"),
    ("smiles", "smile"),
];
const PREPOSITIONS: [&str; 4] = ["near", "behind", "beside", "above"];
const ADVERBS: [&str; 4] = ["often", "always", "never", "sometimes"];
const NAMES: [&str; 40] = [
    "anna", "bruno", "clara", "david", "emma", "felix", "grace", "henry", "irene", "jonas", "karin", "louis", "maria",
    "nils", "olga", "peter", "quinn", "rosa", "simon", "tessa", "ulrich", "vera", "walter", "xenia", "yusuf", "zoe",
    "albert", "berta", "carl", "doris", "erik", "frida", "georg", "hanna", "ivan", "julia", "kurt", "lena", "max",
    "nora",
];
const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
const LETTERS: [&str; 16] = [
    "b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "p", "q", "r", "t", "v", "w",
];

/// A property that every name has, and the forms in which a sentence may say it: words before the name, between name
/// and value, with the value first or last.
struct Attribute {
    values: [&'static str; 12],
    forms: [Form; 3],
}

#[derive(Clone, Copy)]
struct Form {
    before: &'static str,
    between: &'static str,
    after: &'static str,
}

const fn form(before: &'static str, between: &'static str, after: &'static str) -> Form {
    Form { before, between, after }
}

const ATTRIBUTES: [Attribute; 3] = [
    Attribute {
        values: [
            "rome", "paris", "oslo", "cairo", "lima", "delhi", "tokyo", "quito", "berlin", "madrid", "dublin", "prague",
        ],
        forms: [
            form("", "lives in", ""),
            form("the home of", "is", ""),
            form("we visit", "in", "today"),
        ],
    },
    Attribute {
        values: [
            "tea", "milk", "bread", "rice", "soup", "cake", "fish", "corn", "beans", "honey", "cheese", "plums",
        ],
        forms: [
            form("", "likes", ""),
            form("the wish of", "is for", ""),
            form("they serve", "some", "today"),
        ],
    },
    Attribute {
        values: [
            "red", "blue", "green", "black", "white", "brown", "pink", "gray", "gold", "silver", "purple", "orange",
        ],
        forms: [
            form("", "wears", ""),
            form("the coat of", "is", ""),
            form("you see", "in", "now"),
        ],
    },
];

/// A capability that the language asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Domain {
    /// Verb and subject agree in number, whatever noun stands between them. Two choices.
    Agreement,
    /// Sums of two numbers of two digits. Four choices.
    Arithmetic,
    /// What is known of a name, asked in a form in which training never says it of that name. Four choices.
    Facts,
    /// The next letter of a sequence that is said again. Four choices.
    Copying,
}

impl Domain {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Agreement, Self::Arithmetic, Self::Facts, Self::Copying];

    /// Its task's name.
    pub const fn task(self) -> &'static str {
        match self {
            Self::Agreement => "agreement",
            Self::Arithmetic => "arithmetic",
            Self::Facts => "facts",
            Self::Copying => "copying",
        }
    }
}

/// A question with its choices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What is asked for.
    pub domain: Domain,
    /// What the model reads.
    pub context: String,
    /// What it chooses from.
    pub choices: Vec<String>,
    /// Which choice is right.
    pub gold: usize,
}

impl Item {
    /// The context with the right choice.
    pub fn text(&self) -> String {
        format!("{} {}", self.context, self.choices[self.gold])
    }
}

/// A sentence that ends in an answer, before it is known whether it is for training or for the test.
struct Sentence {
    /// What decides whether it is held out.
    key: String,
    context: String,
    answer: String,
    /// What stands behind the answer.
    rest: String,
    /// Wrong answers, at least one.
    others: Vec<String>,
    /// Whether the test asks for it; training has simpler ones too.
    is_asked: bool,
}

/// The language with its facts drawn.
#[derive(Debug)]
pub struct Grammar {
    /// Which value a name has of an attribute: [attribute][name].
    values: Vec<Vec<usize>>,
}

impl Grammar {
    /// Draws who lives where and the like.
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let values = ATTRIBUTES.iter().map(|attribute| {
            let draw = |_| rng.random_range(0..attribute.values.len());
            (0..NAMES.len()).map(draw).collect()
        });
        Self {
            values: values.collect(),
        }
    }

    /// Every word of the language, sorted.
    pub fn words() -> Vec<&'static str> {
        let mut words: Vec<&str> = Vec::new();
        words.extend(NOUNS.iter().chain(&VERBS).flat_map(|(one, many)| [*one, *many]));
        words.extend(PREPOSITIONS.iter().chain(&ADVERBS).chain(&NAMES));
        words.extend(DIGITS.iter().chain(&LETTERS));
        for attribute in &ATTRIBUTES {
            words.extend(attribute.values);
            let parts = attribute
                .forms
                .iter()
                .flat_map(|form| [form.before, form.between, form.after]);
            words.extend(parts.flat_map(str::split_whitespace));
        }
        words.extend(["the", "copy", ":", "plus", "equals", "."]);
        words.sort_unstable();
        words.dedup();
        words
    }

    /// A sentence for training, of any domain: words with spaces between, ending in a full stop.
    pub fn sentence(&self, rng: &mut StdRng) -> String {
        let domain = *Domain::ALL.choose(rng).expect("there are domains");
        loop {
            let sentence = self.draw(domain, rng);
            if !is_held_out(domain, &sentence.key) {
                let Sentence {
                    context, answer, rest, ..
                } = sentence;
                return format!("{context} {answer}{rest} .");
            }
        }
    }

    /// `n` different items of a domain, none of which training ever says; fewer where the language has not so many.
    pub fn items(&self, domain: Domain, n: usize, rng: &mut StdRng) -> Vec<Item> {
        let mut items: Vec<Item> = Vec::new();
        // Far more draws than any domain needs, so that a domain with fewer items than asked for ends.
        for _ in 0..n * 1000 {
            if items.len() == n {
                break;
            }
            let sentence = self.draw(domain, rng);
            if !sentence.is_asked || !is_held_out(domain, &sentence.key) {
                continue;
            }
            if items.iter().any(|item| item.context == sentence.context) {
                continue;
            }
            items.push(sentence.into_item(domain, rng));
        }
        items
    }

    fn draw(&self, domain: Domain, rng: &mut StdRng) -> Sentence {
        match domain {
            Domain::Agreement => agreement(rng),
            Domain::Arithmetic => arithmetic(rng),
            Domain::Facts => self.fact(rng),
            Domain::Copying => copying(rng),
        }
    }

    /// A fact in one of its forms; of each name and attribute one form is held out, so the others teach the fact.
    fn fact(&self, rng: &mut StdRng) -> Sentence {
        let (a, name, form) = (
            rng.random_range(0..ATTRIBUTES.len()),
            rng.random_range(0..NAMES.len()),
            rng.random_range(0..3),
        );
        let attribute = &ATTRIBUTES[a];
        let Form { before, between, after } = attribute.forms[form];
        let answer = attribute.values[self.values[a][name]];
        let mut others: Vec<&str> = attribute.values.into_iter().filter(|value| *value != answer).collect();
        others.shuffle(rng);
        let held_out_form = usize::from(Digest::of(format!("{a} {name}").as_bytes()).as_bytes()[0]) % 3;
        Sentence {
            key: if form == held_out_form { HELD_OUT } else { "" }.to_owned(),
            context: format!("{before} {} {between}", NAMES[name]).trim_start().to_owned(),
            answer: answer.to_owned(),
            rest: if after.is_empty() {
                String::new()
            } else {
                format!(" {after}")
            },
            others: others[..3].iter().map(ToString::to_string).collect(),
            is_asked: true,
        }
    }
}

/// The key of a fact in the form that training never uses.
const HELD_OUT: &str = "held out";

/// Whether training never says what has this key: about a tenth of all.
fn is_held_out(domain: Domain, key: &str) -> bool {
    match domain {
        Domain::Facts => key == HELD_OUT,
        _ => Digest::of(key.as_bytes()).as_bytes()[0] < 26,
    }
}

fn agreement(rng: &mut StdRng) -> Sentence {
    let number = |pair: (&'static str, &'static str), is_plural: bool| if is_plural { pair.1 } else { pair.0 };
    let (is_plural, other_is_plural) = (rng.random::<bool>(), rng.random::<bool>());
    let subject = number(*NOUNS.choose(rng).expect("nouns"), is_plural);
    let verb = *VERBS.choose(rng).expect("verbs");
    let mut context = format!("the {subject}");
    // Most sentences have no noun between: agreement with the nearest noun is learned first, and is wrong in the test.
    let has_attractor = rng.random_bool(0.4);
    if has_attractor {
        let attractor = number(*NOUNS.choose(rng).expect("nouns"), other_is_plural);
        let preposition = PREPOSITIONS.choose(rng).expect("prepositions");
        context = format!("{context} {preposition} the {attractor}");
    }
    let key = context.clone();
    if rng.random_bool(0.3) {
        context = format!("{context} {}", ADVERBS.choose(rng).expect("adverbs"));
    }
    Sentence {
        // The same subject without a noun between is no secret.
        key: if has_attractor { key } else { String::new() },
        context,
        answer: number(verb, is_plural).to_owned(),
        rest: String::new(),
        others: vec![number(verb, !is_plural).to_owned()],
        is_asked: has_attractor && is_plural != other_is_plural,
    }
}

fn arithmetic(rng: &mut StdRng) -> Sentence {
    let a = rng.random_range(10..90);
    let b = rng.random_range(10..100 - a);
    let sum = a + b;
    // Off by a unit, by ten, or by both: no wrong answer is of another size.
    let off = |by: i32| sum + if (10..100).contains(&(sum + by)) { by } else { -by };
    let mut offs = [1, 10, 9, 11, -1, -10];
    offs.shuffle(rng);
    let mut others: Vec<String> = Vec::new();
    for wrong in offs.into_iter().map(off) {
        let wrong = digits(wrong);
        if others.len() < 3 && !others.contains(&wrong) {
            others.push(wrong);
        }
    }
    let context = format!("{} plus {} equals", digits(a), digits(b));
    Sentence {
        key: context.clone(),
        context,
        answer: digits(sum),
        rest: String::new(),
        others,
        is_asked: true,
    }
}

/// A number as its digits, a word each.
fn digits(number: i32) -> String {
    let digits: Vec<String> = number.to_string().chars().map(String::from).collect();
    digits.join(" ")
}

fn copying(rng: &mut StdRng) -> Sentence {
    let n = rng.random_range(4..=7);
    let letters: Vec<&str> = LETTERS.sample(rng, n).copied().collect();
    let at = rng.random_range(1..n);
    let sequence = letters.join(" ");
    let mut others: Vec<&str> = letters
        .iter()
        .copied()
        .filter(|letter| *letter != letters[at])
        .collect();
    others.shuffle(rng);
    Sentence {
        context: format!("copy {sequence} : {}", letters[..at].join(" ")),
        key: sequence,
        answer: letters[at].to_owned(),
        rest: letters[at + 1..].iter().map(|letter| format!(" {letter}")).collect(),
        others: others[..3].iter().map(ToString::to_string).collect(),
        is_asked: true,
    }
}

impl Sentence {
    fn into_item(self, domain: Domain, rng: &mut StdRng) -> Item {
        let mut choices = self.others;
        let gold = rng.random_range(0..=choices.len());
        choices.insert(gold, self.answer);
        Item {
            domain,
            context: self.context,
            choices,
            gold,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_word_of_every_sentence_is_in_the_vocabulary() {
        let (grammar, mut rng) = (Grammar::new(1), StdRng::seed_from_u64(2));
        let words: HashSet<&str> = Grammar::words().into_iter().collect();
        for _ in 0..5000 {
            let sentence = grammar.sentence(&mut rng);
            for word in sentence.split(' ') {
                assert!(words.contains(word), "`{word}` of `{sentence}`");
            }
        }
    }

    #[test]
    fn items_have_one_right_choice_among_different_ones() {
        let (grammar, mut rng) = (Grammar::new(1), StdRng::seed_from_u64(2));
        for domain in Domain::ALL {
            let items = grammar.items(domain, 100, &mut rng);
            assert_eq!(items.len(), 100, "{domain:?}");
            let n_choices = if domain == Domain::Agreement { 2 } else { 4 };
            for item in &items {
                let different: HashSet<&String> = item.choices.iter().collect();
                assert_eq!(different.len(), n_choices, "{item:?}");
            }
            let golds: HashSet<usize> = items.iter().map(|item| item.gold).collect();
            assert_eq!(golds.len(), n_choices, "the right choice stands anywhere");
        }
    }

    #[test]
    fn sums_are_right_and_wrong_ones_are_wrong() {
        let mut rng = StdRng::seed_from_u64(3);
        for item in Grammar::new(1).items(Domain::Arithmetic, 200, &mut rng) {
            let number = |words: &str| words.replace(' ', "").parse::<i32>().unwrap();
            let (a, b) = item.context.trim_end_matches(" equals").split_once(" plus ").unwrap();
            let right: Vec<usize> = (0..4)
                .filter(|&i| number(&item.choices[i]) == number(a) + number(b))
                .collect();
            assert_eq!(right, [item.gold], "{item:?}");
        }
    }
}
