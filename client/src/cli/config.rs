//! What `fineline login` keeps, and which URL and token a command uses: flag, then environment, then the kept ones.
//!
//! **Invariant:** a kept token goes only to the URL that it was kept for; the file is readable by its owner alone.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::failure::UserError;

/// The file's content.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
}

/// What a command uses.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) url: String,
    pub(crate) token: Option<String>,
}

/// Where the file is: `FINELINE_CONFIG`, else the user's folder for configuration.
pub(crate) fn path() -> anyhow::Result<PathBuf> {
    let named = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let folder = || named("XDG_CONFIG_HOME").or_else(|| Some(std::env::home_dir()?.join(".config")));
    let path = named("FINELINE_CONFIG").or_else(|| Some(folder()?.join("fineline").join("config.toml")));
    path.ok_or_else(|| {
        UserError::new(
            "there is no home folder to keep settings in",
            "set FINELINE_CONFIG to a file",
        )
        .into()
    })
}

/// Reads the file when there is one.
pub(crate) fn load(path: &Path) -> anyhow::Result<Option<Config>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("can't read `{}`", path.display())),
    };
    toml::from_str(&text).map(Some).map_err(|error| {
        // Not the parser's own words: they show the line, and that may be the token's.
        let message = format!("`{}` can't be understood: {}", path.display(), error.message());
        UserError::new(message, "run `fineline login` to write it anew").into()
    })
}

/// Writes the file whole or not at all.
pub(crate) fn save(path: &Path, config: &Config) -> anyhow::Result<()> {
    let failed = || format!("can't write `{}`", path.display());
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(failed)?;
    // A temporary file is made readable by its owner alone, and stays so under its new name.
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
    file.write_all(toml::to_string(config)?.as_bytes())
        .with_context(failed)?;
    file.persist(path).with_context(failed)?;
    Ok(())
}

/// Puts together what was given (by flag or environment) and what was kept.
pub(crate) fn resolve(url: Option<String>, token: Option<String>, kept: Option<Config>) -> Result<Settings, UserError> {
    let given = |value: Option<String>| value.filter(|value| !value.is_empty());
    let kept_url = kept.as_ref().map(|kept| kept.url.clone());
    let Some(url) = given(url).or(kept_url) else {
        return Err(UserError::new(
            "no registry is named",
            "give `--url`, set FINELINE_URL, or keep one with `fineline login --url URL`",
        ));
    };
    let same = |a: &str, b: &str| a.trim_end_matches('/') == b.trim_end_matches('/');
    let kept_token = kept.filter(|kept| same(&kept.url, &url)).and_then(|kept| kept.token);
    let token = given(token).or(kept_token);
    Ok(Settings { url, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn kept() -> Option<Config> {
        Some(Config {
            url: "http://kept".to_owned(),
            token: some("kept-token"),
        })
    }

    fn resolved(url: Option<String>, token: Option<String>, kept: Option<Config>) -> (String, Option<String>) {
        let settings = resolve(url, token, kept).unwrap_or_else(|error| panic!("{error}"));
        (settings.url, settings.token)
    }

    #[test]
    fn what_is_given_goes_before_what_was_kept() {
        assert_eq!(resolved(None, None, kept()), ("http://kept".into(), some("kept-token")));
        assert_eq!(
            resolved(None, some("given"), kept()),
            ("http://kept".into(), some("given"))
        );
        assert_eq!(resolved(some("http://kept/"), None, kept()).1, some("kept-token"));
        assert_eq!(
            resolved(some(""), some(""), kept()),
            ("http://kept".into(), some("kept-token"))
        );
        assert!(resolve(None, some("given"), None).is_err());
    }

    #[test]
    fn a_kept_token_goes_nowhere_else() {
        assert_eq!(
            resolved(some("http://other"), None, kept()),
            ("http://other".into(), None)
        );
    }

    #[test]
    fn the_file_is_the_owners_alone_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fineline/config.toml");
        assert!(load(&path).unwrap().is_none());
        save(&path, &kept().unwrap()).unwrap();
        assert!(load(&path).unwrap() == kept());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::write(&path, "token = fl_secret").unwrap();
        let error = load(&path).err().unwrap().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
