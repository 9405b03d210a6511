//! A name's words, and the amounts in them: a number as it is written, with its unit.
//!
//! **Invariant:** an amount is the end of its word and all of it behind the letters: `7b1` and `8x7b` have none.

use super::RoundedTokens;

/// A part of a name without signs: letters, and perhaps an amount right behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word<'a> {
    /// The signs between the word before and this one.
    pub(super) before: &'a str,
    /// What it begins with; all of it where it has no amount.
    pub(super) letters: &'a str,
    pub(super) amount: Option<Amount<'a>>,
}

/// A number as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Amount<'a> {
    whole: &'a str,
    decimals: &'a str,
    pub(super) unit: Unit,
}

/// What a number counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    One,
    Thousand,
    Million,
    Billion,
    /// `bt`, of which nobody makes models.
    BillionTokens,
    Trillion,
}

impl Unit {
    /// Reads lower-case letters.
    fn of(letters: &str) -> Option<Self> {
        match letters {
            "" => Some(Self::One),
            "k" => Some(Self::Thousand),
            "m" => Some(Self::Million),
            "b" => Some(Self::Billion),
            "bt" => Some(Self::BillionTokens),
            "t" => Some(Self::Trillion),
            _ => None,
        }
    }

    const fn zeros(self) -> u32 {
        match self {
            Self::One => 0,
            Self::Thousand => 3,
            Self::Million => 6,
            Self::Billion | Self::BillionTokens => 9,
            Self::Trillion => 12,
        }
    }
}

impl<'a> Amount<'a> {
    /// Reads `DIGITS[.DIGITS][UNIT]` of lower-case letters.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let (whole, decimals) = match number.split_once('.') {
            None => (number, ""),
            Some((_, "")) => return None,
            Some(parts) => parts,
        };
        if whole.is_empty() || decimals.contains('.') {
            return None;
        }
        Some(Self {
            whole,
            decimals,
            unit: Unit::of(unit)?,
        })
    }

    /// Its value, when that is a whole number.
    pub(super) fn count(&self) -> Option<u64> {
        self.value_and_last_unit().map(|(value, _)| value)
    }

    /// Its value as a count of tokens, with how far the true count may lie from it.
    pub(super) fn tokens(&self) -> Option<RoundedTokens> {
        let (tokens, last_unit) = self.value_and_last_unit()?;
        Some(RoundedTokens {
            tokens,
            half_unit: last_unit / 2,
        })
    }

    /// Whether it is written as no model's size is: a decimal point, two digits or more before it, four or more in all.
    pub(super) fn is_finer_than_a_size(&self) -> bool {
        let n_whole = self.whole.trim_start_matches('0').len();
        let n_decimals = self.decimals.len();
        n_decimals > 0 && n_whole >= 2 && n_whole + n_decimals >= 4
    }

    /// The value, and what the last digit counts in: `1.25k` is 1,250 and 10.
    fn value_and_last_unit(&self) -> Option<(u64, u64)> {
        let n_decimals = u32::try_from(self.decimals.len()).ok()?;
        let last_unit = 10_u64.pow(self.unit.zeros().checked_sub(n_decimals)?);
        let digit = |n: u64, digit: u8| n.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
        let mut digits = self.whole.bytes().chain(self.decimals.bytes());
        let value = digits.try_fold(0, digit)?.checked_mul(last_unit)?;
        Some((value, last_unit))
    }
}

/// The words of a lower-case name. A dot between two digits belongs to their number.
pub(super) fn words(name: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut rest = name;
    while let Some(begin) = rest.find(char::is_alphanumeric) {
        let (before, from) = rest.split_at(begin);
        let (text, behind) = from.split_at(word_end(from));
        words.push(word(before, text));
        rest = behind;
    }
    words
}

fn word_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let is_digit = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at))
            .is_some_and(|byte| byte.is_ascii_digit())
    };
    let is_point = |at: usize| is_digit(at.checked_sub(1)) && is_digit(Some(at + 1));
    let mut chars = text.char_indices();
    let end = chars.find(|(at, c)| !(c.is_alphanumeric() || *c == '.' && is_point(*at)));
    end.map_or(text.len(), |(at, _)| at)
}

fn word<'a>(before: &'a str, text: &'a str) -> Word<'a> {
    let digit = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
    let (letters, amount) = text.split_at(digit);
    match Amount::of(amount) {
        Some(amount) => Word {
            before,
            letters,
            amount: Some(amount),
        },
        None => Word {
            before,
            letters: text,
            amount: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_into_letters_and_amounts() {
        let told = |name: &'static str| -> Vec<(&str, &str, Option<u64>)> {
            let words = words(name).into_iter();
            words
                .map(|word| (word.before, word.letters, word.amount.and_then(|amount| amount.count())))
                .collect()
        };
        assert_eq!(
            told("step-1195k_token=2.5t."),
            [
                ("", "step", None),
                ("-", "", Some(1_195_000)),
                ("_", "token", None),
                ("=", "", Some(2_500_000_000_000))
            ]
        );
        assert_eq!(told("ba1000.pt"), [("", "ba", Some(1000)), (".", "pt", None)]);
        // None of these is an amount, nor is a half of one.
        for word in ["7b1", "8x7b", "1.2.3", "3rd", "500bts", "5é"] {
            assert_eq!(told(word), [("", word, None)], "{word}");
        }
        assert_eq!(told("1.5"), [("", "", None)]);
        assert_eq!(told("/-."), []);
    }

    #[test]
    fn an_amount_knows_how_finely_it_is_written() {
        let tokens = |text: &'static str| {
            Amount::of(text)
                .and_then(|amount| amount.tokens())
                .map(|rounded| (rounded.tokens, rounded.half_unit))
        };
        assert_eq!(tokens("100.66b"), Some((100_660_000_000, 5_000_000)));
        assert_eq!(tokens("218.1b"), Some((218_100_000_000, 50_000_000)));
        assert_eq!(tokens("4b"), Some((4_000_000_000, 500_000_000)));
        assert_eq!(tokens("4194304"), Some((4_194_304, 0)));
        assert_eq!(tokens("1.000000001b"), Some((1_000_000_001, 0)));
        assert_eq!(tokens("1.0000000001b"), None);
        assert_eq!(tokens("18446744073709551615"), Some((u64::MAX, 0)));
        for too_large in ["18446744073709551616", "18446744074b", "99999999t"] {
            assert_eq!(tokens(too_large), None, "{too_large}");
        }
    }
}
