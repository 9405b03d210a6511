//! What lm-eval's own tasks do in Python, in Rust. Which reference means which is in `fineline_format::task`.

use anyhow::{Context, Result, bail};
use fineline_format::task::{Builtin, Function, Role};
use serde_json::{Map, Value};

use super::language::MAX_TEXT_BYTES;
use super::template::Given;
use crate::python;

/// The built-in that a reference means, by the fields of a document.
///
/// # Errors
/// When the document fits none of those with the function's name, or several.
pub(super) fn resolve(function: &Function, role: Role, doc: &Value) -> Result<Builtin> {
    let candidates = function.candidates(role);
    let fits = |builtin: &Builtin| builtin.fields().iter().all(|field| doc.get(field).is_some());
    let fitting: Vec<Builtin> = candidates.iter().copied().filter(fits).collect();
    let Function { module, name, .. } = function;
    match fitting.as_slice() {
        [builtin] => Ok(*builtin),
        [] => {
            let known: Vec<String> = candidates
                .iter()
                .map(|builtin| format!("`{}` reads {}", builtin.name(), builtin.fields().join(", ")))
                .collect();
            bail!(
                "`!function {module}.{name}` is known for documents of other fields ({}): name the module after the one that is \
                 meant, or write it as a template",
                known.join("; ")
            )
        }
        [first, second, ..] => bail!(
            "`!function {module}.{name}` may be `{}` or `{}`: name the module after the one that is meant",
            first.name(),
            second.name()
        ),
    }
}

/// A text, a target or choices of a document.
///
/// # Errors
/// When a field is missing or is none that the preparation understands.
pub(super) fn give(builtin: Builtin, doc: &Value) -> Result<Given> {
    let given = match builtin {
        Builtin::CopaText => {
            let connector = match text(doc, "question")? {
                "cause" => "because",
                "effect" => "therefore",
                other => bail!("its `question` is `{other}`, neither `cause` nor `effect`"),
            };
            let premise = python::strip(text(doc, "premise")?);
            let without_period = &premise[..premise.char_indices().next_back().map_or(0, |(at, _)| at)];
            Given::Text(format!("{without_period} {connector}"))
        }
        Builtin::CopaTarget => {
            let right = if doc["label"] == 0 { "choice1" } else { "choice2" };
            Given::Text(copa_choice(text(doc, right)?))
        }
        Builtin::CopaChoice => {
            let choices = ["choice1", "choice2"].map(|field| text(doc, field).map(|text| copa_choice(text).into()));
            let [first, second] = choices;
            Given::List(vec![first?, second?])
        }
        Builtin::WinograndeText => match text(doc, "answer")? {
            "1" => Given::Int(0),
            "2" => Given::Int(1),
            other => bail!("its `answer` is `{other}`, neither `1` nor `2`"),
        },
        Builtin::WinograndeTarget => Given::Text(python::strip(at_blank(doc)?.1).to_owned()),
        Builtin::WinograndeChoice => {
            let before = at_blank(doc)?.0;
            let option = |field| text(doc, field).map(|option| Value::from(format!("{before}{option}")));
            Given::List(vec![option("option1")?, option("option2")?])
        }
        Builtin::WikitextTarget => Given::Text(super::wikitext::detokenized(text(doc, "page")?)?),
        Builtin::RaceText => Given::Text(race_text(doc)?),
        Builtin::RaceTarget => Given::Int(letter(&last_problem(doc)?)? as i64),
        Builtin::RaceChoice => {
            let problem = last_problem(doc)?;
            let options = list(&problem, "options")?;
            Given::List(
                options
                    .get(..4)
                    .context("a problem has fewer than four options")?
                    .to_vec(),
            )
        }
        Builtin::LogiqaText => {
            let mut prompt = format!(
                "Passage: {}\nQuestion: {}\nChoices:\n",
                text(doc, "context")?,
                text(doc, "question")?
            );
            for (letter, option) in ["A", "B", "C", "D"].iter().zip(list(doc, "options")?) {
                prompt.push_str(&format!("{letter}. {}\n", python::str(option)));
            }
            Given::Text(prompt + "Answer:")
        }
        Builtin::LogiqaTarget => {
            let label = python::strip(text(doc, "label")?);
            let index = ["a", "b", "c", "d"].iter().position(|letter| *letter == label);
            Given::Int(index.with_context(|| format!("its `label` is `{label}`"))? as i64)
        }
        Builtin::MedqaText => {
            let mut answers = String::new();
            for (letter, field) in [("A", "ending0"), ("B", "ending1"), ("C", "ending2"), ("D", "ending3")] {
                answers.push_str(&format!("{letter}. {}\n", python::str(&doc[field])));
            }
            Given::Text(format!("Question: {}\n{answers}Answer:", python::str(&doc["sent1"])))
        }
        Builtin::MedqaTarget => Given::of(doc["label"].clone()),
        Builtin::MnliText => {
            let hypothesis = python::strip(text(doc, "hypothesis")?);
            let period = if hypothesis.ends_with('.') { "" } else { "." };
            Given::Text(format!(
                "{}\nQuestion: {hypothesis}{period} True, False or Neither?\nAnswer:",
                text(doc, "premise")?
            ))
        }
        Builtin::CrowsPairsChoice => Given::List(vec![doc["sent_more"].clone(), doc["sent_less"].clone()]),
        Builtin::HellaswagDocs
        | Builtin::ArithmeticDocs
        | Builtin::WikitextResults
        | Builtin::TruthfulqaMc2
        | Builtin::CrowsPairsResults => bail!("`{}` gives no text", builtin.name()),
    };
    Ok(given)
}

/// A document as its task's preparation leaves it: new fields behind its own, known ones in their place.
///
/// # Errors
/// As [`give`].
pub(super) fn prepare(builtin: Builtin, doc: Value) -> Result<Value> {
    let fields: Vec<(&str, Value)> = match builtin {
        Builtin::HellaswagDocs => {
            let context = format!(
                "{}: {} {}",
                text(&doc, "activity_label")?,
                text(&doc, "ctx_a")?,
                python::capitalize(text(&doc, "ctx_b")?)
            );
            let endings = list(&doc, "endings")?.iter().map(|ending| {
                let ending = ending.as_str().context("one of its `endings` is no text")?;
                Ok(Value::from(without_artifacts(ending)))
            });
            let endings = endings.collect::<Result<Vec<_>>>()?;
            let label = python::str(&doc["label"]);
            let gold: i64 = python::strip(&label)
                .parse()
                .with_context(|| format!("its `label` `{label}` is no number"))?;
            vec![
                ("query", without_artifacts(&context).into()),
                ("choices", endings.into()),
                ("gold", gold.into()),
            ]
        }
        Builtin::ArithmeticDocs => {
            let context = python::strip(text(&doc, "context")?)
                .replace("\n\n", "\n")
                .replace("Q:", "Question:")
                .replace("A:", "Answer:");
            vec![("context", context.into())]
        }
        other => bail!("`{}` prepares no documents", other.name()),
    };
    let Value::Object(mut map) = doc else {
        bail!("it is no object");
    };
    let new: Map<String, Value> = fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    map.extend(new);
    Ok(Value::Object(map))
}

fn text<'a>(doc: &'a Value, field: &str) -> Result<&'a str> {
    let text = doc.get(field).and_then(Value::as_str);
    text.with_context(|| format!("its `{field}` is no text"))
}

fn list<'a>(doc: &'a Value, field: &str) -> Result<&'a [Value]> {
    let list = doc.get(field).and_then(Value::as_array);
    Ok(list.with_context(|| format!("its `{field}` is no list"))?)
}

/// A choice of copa goes on in the sentence: its first letter is small.
fn copa_choice(choice: &str) -> String {
    let mut chars = choice.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_lowercase).collect();
    format!(" {first}{}", chars.as_str())
}

/// What stands before and behind the blank of a sentence of winogrande.
fn at_blank(doc: &Value) -> Result<(&str, &str)> {
    let sentence = text(doc, "sentence")?;
    sentence.split_once('_').context("its `sentence` has no `_`")
}

/// hellaswag's own cleaning: titles end a sentence, what stands in brackets goes, and so do double spaces.
fn without_artifacts(text: &str) -> String {
    let text = python::strip(text).replace(" [title]", ". ");
    let mut kept = String::with_capacity(text.len());
    // A pair of brackets stands on one line.
    for (i, line) in text.split('\n').enumerate() {
        kept.push_str(if i > 0 { "\n" } else { "" });
        let mut rest = line;
        while let Some((before, inside)) = rest.split_once('[') {
            let Some((_, after)) = inside.split_once(']') else {
                break;
            };
            kept.push_str(before);
            rest = after;
        }
        kept.push_str(rest);
    }
    kept.replace("  ", " ")
}

/// The problems of an article of race, which stand there as Python would write them.
fn problems(doc: &Value) -> Result<Vec<Value>> {
    let problems = match &doc["problems"] {
        Value::String(text) if text.len() <= MAX_TEXT_BYTES => python::literal(text),
        Value::Array(_) => Some(doc["problems"].clone()),
        _ => None,
    };
    match problems {
        Some(Value::Array(problems)) if !problems.is_empty() => Ok(problems),
        _ => bail!("its `problems` are no list of problems"),
    }
}

fn last_problem(doc: &Value) -> Result<Value> {
    problems(doc)?.pop().context("it has no problems")
}

/// The index of a problem's answer.
fn letter(problem: &Value) -> Result<usize> {
    let answer = text(problem, "answer")?;
    let index = ["A", "B", "C", "D"].iter().position(|letter| *letter == answer);
    index.with_context(|| format!("the answer `{answer}` of a problem is none of A to D"))
}

fn race_text(doc: &Value) -> Result<String> {
    let mut problems = problems(doc)?;
    let last = problems.pop().context("it has no problems")?;
    let mut all = format!("Article: {}\n\n", text(doc, "article")?);
    for problem in &problems {
        let question = text(problem, "question")?;
        let option = list(problem, "options")?.get(letter(problem)?);
        let option = option
            .and_then(Value::as_str)
            .context("an option of a problem is no text")?;
        match question.strip_suffix("  _  .") {
            // The answer stands in the blank; of the gap before it one space is left.
            Some(before) => all.push_str(&format!("{before} {option}\n")),
            None => all.push_str(&format!("Question: {question}\nAnswer: {option}\n")),
        }
    }
    all.push_str(text(&last, "question")?);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_function_of_many_tasks_is_known_by_the_documents() {
        let function = Function {
            task: "t".to_owned(),
            module: "utils".to_owned(),
            name: "doc_to_text".to_owned(),
        };
        let copa = json!({"premise": "It rained.", "choice1": "A", "choice2": "B", "question": "effect", "label": 0});
        assert_eq!(resolve(&function, Role::Text, &copa).unwrap(), Builtin::CopaText);
        let winogrande = json!({"sentence": "a _ b", "option1": "x", "option2": "y", "answer": "1"});
        assert_eq!(
            resolve(&function, Role::Text, &winogrande).unwrap(),
            Builtin::WinograndeText
        );
        let error = resolve(&function, Role::Text, &json!({"q": 1}))
            .unwrap_err()
            .to_string();
        assert!(error.contains("`copa.doc_to_text` reads premise"), "{error}");
        let named = Function {
            module: "utils_copa".to_owned(),
            ..function
        };
        assert!(resolve(&named, Role::Text, &winogrande).is_err());
    }

    /// The expected texts are those that lm-eval's functions give in Python.
    #[test]
    fn preparations_are_lm_evals() {
        let copa =
            json!({"premise": " It rained. ", "choice1": "Xa", "choice2": "Yb", "question": "cause", "label": 1});
        assert_eq!(
            give(Builtin::CopaText, &copa).unwrap(),
            Given::Text("It rained because".to_owned())
        );
        assert_eq!(give(Builtin::CopaTarget, &copa).unwrap(), Given::Text(" yb".to_owned()));
        assert_eq!(
            without_artifacts(" How to [title] do [step] it [substeps]  now. "),
            "How to. do it  now."
        );
        assert_eq!(without_artifacts("a [b\nc] d [e] f [g"), "a [b\nc] d f [g");
        let race = json!({"article": "Text.", "problems": "[{'question': 'Tom is  _  .', 'answer': 'B', \
            'options': ['a', 'tall', 'c', 'd']}, {'question': \"Who's?\", 'answer': 'A', 'options': ['x', 'b', 'c', 'd']}, \
            {'question': 'Last?', 'answer': 'C', 'options': ['q', 'r', 's', 't']}]"});
        assert_eq!(
            give(Builtin::RaceText, &race).unwrap(),
            Given::Text("Article: Text.\n\nTom is tall\nQuestion: Who's?\nAnswer: x\nLast?".to_owned())
        );
        assert_eq!(give(Builtin::RaceTarget, &race).unwrap(), Given::Int(2));
        assert_eq!(
            give(Builtin::RaceChoice, &race).unwrap(),
            Given::List(vec!["q".into(), "r".into(), "s".into(), "t".into()])
        );
        let arithmetic = json!({"context": "\n\nQ: 1?\n\nA: ", "completion": " 2"});
        assert_eq!(
            prepare(Builtin::ArithmeticDocs, arithmetic).unwrap(),
            json!({"context": "Question: 1?\nAnswer:", "completion": " 2"})
        );
        let mnli = json!({"premise": "P", "hypothesis": " H "});
        assert_eq!(
            give(Builtin::MnliText, &mnli).unwrap(),
            Given::Text("P\nQuestion: H. True, False or Neither?\nAnswer:".to_owned())
        );
    }
}
