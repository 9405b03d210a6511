//! wikitext's pages as lm-eval scores them: tokenisation undone.

use anyhow::{Context, Result};
use fancy_regex::Regex;

/// In this order.
const BEFORE_BRACKETS: &[(&str, &str)] = &[
    (" @-@ ", "-"),
    (" @,@ ", ","),
    (" @.@ ", "."),
    (" : ", ": "),
    (" ; ", "; "),
    (" . ", ". "),
    (" ! ", "! "),
    (" ? ", "? "),
    (" , ", ", "),
];

/// Pairs whose inner space goes: what opens, what must not stand inside, what closes.
const PAIRS: &[(&str, &str, &str)] = &[
    ("(", ")", ")"),
    ("[", "]", "]"),
    ("{", "}", "}"),
    ("\"", "\"", "\""),
    ("'", "'", "'"),
];

const AFTER_BRACKETS: &[(&str, &str)] = &[
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" \u{b0} ", "\u{b0}"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
];

/// The text of a page that is scored.
///
/// # Errors
/// When the search for its pairs fails.
pub(super) fn detokenized(page: &str) -> Result<String> {
    let mut text = page.replace("s '", "s'");
    // lm-eval's pattern is written between slashes, so it finds what hardly ever stands there, and puts itself in.
    text = replaced(&text, "/' [0-9]/", "/'[0-9]/")?;
    for (from, to) in BEFORE_BRACKETS {
        text = text.replace(from, to);
    }
    for (open, not, close) in PAIRS {
        let pattern = format!(r"\{open}[\s\x1c-\x1f]*([^\{not}]*?)[\s\x1c-\x1f]*\{close}");
        text = replaced(&text, &pattern, &format!("{open}${{1}}{close}"))?;
    }
    for (from, to) in AFTER_BRACKETS {
        text = text.replace(from, to);
    }
    Ok(text)
}

/// `re.sub`, linear in the text: no pattern here looks around or back.
fn replaced(text: &str, pattern: &str, by: &str) -> Result<String> {
    let regex = Regex::new(pattern).context("a pattern of wikitext")?;
    let replaced = regex.try_replacen(text, 0, by).context("a page of wikitext")?;
    Ok(replaced.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_detokenized_as_lm_eval_does() {
        // What lm-eval's function gives in Python 3.11.
        let page = " = Heading = \n \n The cats ' tail ( 1 @.@ 5 m , or 1 @,@ 500 mm ) is a well @-@ known \" thing \" ; \
            { a } [ b ] and ' c ' . \n = = Sub = = \n It 's 5 ° N of N here ! /' 3/ ( \n ) ( open";
        let text = " = Heading =\n\nThe cats'tail (1.5 m, or 1,500 mm) is a well-known \"thing\"; {a} [b] and' c '.\n\
            == Sub ==\nIt's 5°N of 1 here! /'[0-9]/ () ( open";
        assert_eq!(detokenized(page).unwrap(), text);
    }
}
