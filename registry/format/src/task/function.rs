//! `!function`: Python that a task names and that is never run here. What lm-eval's own tasks name is known by name, and
//! the evaluator does the same; anything else is refused.
//!
//! Several of lm-eval's modules call their functions alike (`utils.doc_to_text`), and a user may have renamed the module
//! (`utils_copa.doc_to_text`) or the task. So a reference means the built-ins of its function's name in its field's role;
//! when the module's or the task's name holds the family of one of them (`preprocess_winogrande`) only that one; and in the
//! end the fields of the documents decide, which must be those that the built-in reads. Where documents of many tasks have
//! such fields (`premise` and `hypothesis`), a name has to say it; and lm-eval's tasks that have both name and fields of
//! another one, and do other things, are known and refused.

use super::metric::Metric;

/// A reference to Python: `module.name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The task that names it.
    pub task: String,
    /// The module, as written.
    pub module: String,
    /// The function's name.
    pub name: String,
}

/// Which of a task's fields names a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `doc_to_text`.
    Text,
    /// `doc_to_target`.
    Target,
    /// `doc_to_choice`.
    Choice,
    /// `process_docs`.
    Docs,
    /// `process_results`.
    Results,
}

/// A preparation of lm-eval's own tasks that is built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each is named as lm-eval's own function, which is what it does"
)]
pub enum Builtin {
    CopaText,
    CopaTarget,
    CopaChoice,
    HellaswagDocs,
    WinograndeText,
    WinograndeTarget,
    WinograndeChoice,
    WikitextTarget,
    WikitextResults,
    TruthfulqaMc2,
    RaceText,
    RaceTarget,
    RaceChoice,
    ArithmeticDocs,
    LogiqaText,
    LogiqaTarget,
    MedqaText,
    MedqaTarget,
    MnliText,
    CrowsPairsChoice,
    CrowsPairsResults,
}

impl Builtin {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::CopaText,
        Self::CopaTarget,
        Self::CopaChoice,
        Self::HellaswagDocs,
        Self::WinograndeText,
        Self::WinograndeTarget,
        Self::WinograndeChoice,
        Self::WikitextTarget,
        Self::WikitextResults,
        Self::TruthfulqaMc2,
        Self::RaceText,
        Self::RaceTarget,
        Self::RaceChoice,
        Self::ArithmeticDocs,
        Self::LogiqaText,
        Self::LogiqaTarget,
        Self::MedqaText,
        Self::MedqaTarget,
        Self::MnliText,
        Self::CrowsPairsChoice,
        Self::CrowsPairsResults,
    ];

    const fn facts(self) -> (&'static str, &'static str, Role, &'static [&'static str]) {
        const COPA: &[&str] = &["premise", "choice1", "choice2", "question", "label"];
        const WINOGRANDE: &[&str] = &["sentence", "option1", "option2", "answer"];
        const RACE: &[&str] = &["article", "problems"];
        const LOGIQA: &[&str] = &["context", "question", "options", "label"];
        const MEDQA: &[&str] = &["sent1", "ending0", "ending1", "ending2", "ending3", "label"];
        match self {
            Self::CopaText => ("copa", "doc_to_text", Role::Text, COPA),
            Self::CopaTarget => ("copa", "doc_to_target", Role::Target, COPA),
            Self::CopaChoice => ("copa", "doc_to_choice", Role::Choice, COPA),
            Self::HellaswagDocs => (
                "hellaswag",
                "process_docs",
                Role::Docs,
                &["activity_label", "ctx_a", "ctx_b", "endings", "label"],
            ),
            Self::WinograndeText => ("winogrande", "doc_to_text", Role::Text, WINOGRANDE),
            Self::WinograndeTarget => ("winogrande", "doc_to_target", Role::Target, WINOGRANDE),
            Self::WinograndeChoice => ("winogrande", "doc_to_choice", Role::Choice, WINOGRANDE),
            Self::WikitextTarget => ("wikitext", "wikitext_detokenizer", Role::Target, &["page"]),
            Self::WikitextResults => ("wikitext", "process_results", Role::Results, &["page"]),
            Self::TruthfulqaMc2 => ("truthfulqa", "process_results_mc2", Role::Results, &["mc2_targets"]),
            Self::RaceText => ("race", "doc_to_text", Role::Text, RACE),
            Self::RaceTarget => ("race", "doc_to_target", Role::Target, RACE),
            Self::RaceChoice => ("race", "doc_to_choice", Role::Choice, RACE),
            Self::ArithmeticDocs => ("arithmetic", "process_docs", Role::Docs, &["context", "completion"]),
            Self::LogiqaText => ("logiqa", "doc_to_text", Role::Text, LOGIQA),
            Self::LogiqaTarget => ("logiqa", "doc_to_target", Role::Target, LOGIQA),
            Self::MedqaText => ("medqa", "doc_to_text", Role::Text, MEDQA),
            Self::MedqaTarget => ("medqa", "doc_to_target", Role::Target, MEDQA),
            Self::MnliText => ("mnli", "doc_to_text", Role::Text, &["premise", "hypothesis"]),
            Self::CrowsPairsChoice => (
                "crows_pairs",
                "doc_to_choice",
                Role::Choice,
                &["sent_more", "sent_less"],
            ),
            Self::CrowsPairsResults => (
                "crows_pairs",
                "process_results",
                Role::Results,
                &["sent_more", "sent_less"],
            ),
        }
    }

    /// Its name in a score's provenance: `hellaswag.process_docs`.
    pub fn name(self) -> String {
        let (family, function, ..) = self.facts();
        format!("{family}.{function}")
    }

    /// The fields that a document must have for it.
    pub const fn fields(self) -> &'static [&'static str] {
        self.facts().3
    }

    /// Whether its fields are too common to tell it by them.
    const fn needs_name(self) -> bool {
        matches!(
            self,
            Self::MnliText
                | Self::ArithmeticDocs
                | Self::LogiqaText
                | Self::LogiqaTarget
                | Self::MedqaText
                | Self::MedqaTarget
        )
    }

    /// The metrics that it gives, where it works out results.
    pub const fn metrics(self) -> &'static [Metric] {
        match self {
            Self::WikitextResults => &[Metric::WordPerplexity, Metric::BytePerplexity, Metric::BitsPerByte],
            Self::TruthfulqaMc2 => &[Metric::Acc],
            Self::CrowsPairsResults => &[Metric::LikelihoodDiff, Metric::PctStereotype],
            _ => &[],
        }
    }
}

impl Function {
    /// Reads `module.name`.
    pub(super) fn parse(reference: &str, task: &str) -> Option<Self> {
        let (module, name) = reference.rsplit_once('.')?;
        (!module.is_empty() && !name.is_empty()).then(|| Self {
            task: task.to_owned(),
            module: module.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The built-ins that it may mean in a role.
    pub fn candidates(&self, role: Role) -> Vec<Builtin> {
        if NAMESAKES.iter().any(|name| self.task.contains(name)) {
            return Vec::new();
        }
        let named = |builtin: &Builtin| {
            let (_, function, its_role, _) = builtin.facts();
            function == self.name && its_role == role
        };
        let is_of_family = |builtin: &Builtin| {
            let family = builtin.facts().0;
            self.module.contains(family) || self.task.contains(family)
        };
        let all: Vec<Builtin> = Builtin::ALL.iter().copied().filter(named).collect();
        let of_family: Vec<Builtin> = all.iter().copied().filter(is_of_family).collect();
        if of_family.is_empty() {
            all.into_iter().filter(|builtin| !builtin.needs_name()).collect()
        } else {
            of_family
        }
    }
}

/// lm-eval's tasks whose functions have the names of others', read the same fields, and do something else.
const NAMESAKES: &[&str] = &["egyhellaswag", "darijahellaswag", "icelandic_winogrande"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_the_family_or_leaves_it_open() {
        let candidates = |reference: &str, task: &str, role| Function::parse(reference, task).unwrap().candidates(role);
        assert_eq!(
            candidates("preprocess_winogrande.doc_to_text", "t", Role::Text),
            [Builtin::WinograndeText]
        );
        assert_eq!(
            candidates("utils_copa.doc_to_choice", "t", Role::Choice),
            [Builtin::CopaChoice]
        );
        assert_eq!(
            candidates("utils.doc_to_text", "local_mnli", Role::Text),
            [Builtin::MnliText]
        );
        let open = candidates("utils.doc_to_text", "t", Role::Text);
        assert_eq!(open, [Builtin::CopaText, Builtin::WinograndeText, Builtin::RaceText]);
        assert_eq!(
            candidates("anything.process_results_mc2", "t", Role::Results),
            [Builtin::TruthfulqaMc2]
        );
        assert!(candidates("utils_copa.doc_to_text", "t", Role::Docs).is_empty());
        assert!(candidates("utils.my_own", "copa", Role::Text).is_empty());
        assert!(candidates("preprocess_winogrande.doc_to_text", "icelandic_winogrande", Role::Text).is_empty());
        assert_eq!(Function::parse("no_module", "t"), None);
    }
}
