//! What comes from outside and is wrong: every parser refuses it in words that name the thing, in bounded time and memory.
//! A process of its own, so that its peak of memory is the parsers'.

#[cfg(test)]
mod containers;
#[cfg(test)]
#[path = "../it/craft.rs"]
mod craft;
#[cfg(test)]
mod pickles;
#[cfg(test)]
mod texts;

#[cfg(test)]
mod table {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    /// The longest that a case may take: a guard against loops, not a measurement.
    const MAX_TIME: Duration = Duration::from_secs(10);

    /// The most memory that the whole table may take, its inputs of up to 20 MB included.
    const MAX_MEMORY_KB: u64 = 768 << 10;

    /// One thing that is wrong.
    pub(crate) struct Case {
        pub(crate) parser: &'static str,
        pub(crate) name: &'static str,
        /// Words that the refusal must hold.
        pub(crate) expected: &'static str,
        /// Makes the input and parses it.
        pub(crate) parse: Box<dyn Fn() -> Result<(), String>>,
    }

    pub(crate) fn case(
        parser: &'static str,
        name: &'static str,
        expected: &'static str,
        parse: impl Fn() -> Result<(), String> + 'static,
    ) -> Case {
        Case {
            parser,
            name,
            expected,
            parse: Box::new(parse),
        }
    }

    fn peak_kb() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn what_is_wrong_is_refused_in_words_in_bounded_time_and_memory() {
        let groups = [
            crate::containers::cases(),
            crate::pickles::cases(),
            crate::texts::cases(),
        ];
        let cases: Vec<Case> = groups.into_iter().flatten().collect();
        let (mut n_by_parser, mut wrong) = (BTreeMap::new(), Vec::new());
        for case in &cases {
            let begun = Instant::now();
            let result = (case.parse)();
            let took = begun.elapsed();
            let what = match result {
                Ok(()) => Some("it was taken".to_owned()),
                Err(error) if !error.contains(case.expected) => Some(format!("not `{}`: {error}", case.expected)),
                Err(error) if error.len() > 2000 || error.contains(char::is_control) => Some(format!("{error:?}")),
                Err(_) if took > MAX_TIME => Some(format!("it took {took:?}")),
                Err(_) => None,
            };
            wrong.extend(what.map(|what| format!("{}: {}: {what}", case.parser, case.name)));
            *n_by_parser.entry(case.parser).or_insert(0) += 1;
        }
        let peak = peak_kb();
        println!("bad input: {} cases: {n_by_parser:?}, peak {peak} kB", cases.len());
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(peak < MAX_MEMORY_KB, "the table took {peak} kB");
    }
}
