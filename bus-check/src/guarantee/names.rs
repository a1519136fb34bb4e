//! Names of guarantees as they are written in files and on command lines, and what is wrong with
//! one that is not known.

use std::fmt;
use std::str::FromStr;

use super::{Guarantee, NOT_DECIDED};

impl Guarantee {
    /// The name as one word, such as `lost-write`: for files and command lines. It stays the same
    /// from version to version.
    pub fn slug(self) -> String {
        self.name().replace(',', "").replace(' ', "-")
    }

    /// The guarantee of that id.
    pub fn from_id(id: &str) -> Option<Self> {
        Self::all().find(|guarantee| guarantee.id().eq_ignore_ascii_case(id))
    }
}

/// Takes `B2`, `lost-write-finally`, or both as `B2.lost-write-finally`; lower case or upper case,
/// and blanks for hyphens.
impl FromStr for Guarantee {
    type Err = UnknownGuarantee;

    fn from_str(text: &str) -> Result<Self, UnknownGuarantee> {
        let words = text.trim().to_lowercase().replace(',', "").replace(' ', "-");
        let name = |guarantee: &Self| guarantee.slug() == words;
        if let Some(guarantee) = Self::from_id(&words).or_else(|| Self::all().find(name)) {
            return Ok(guarantee);
        }
        let both = words
            .split_once(['.', '-'])
            .and_then(|(id, name)| Self::from_id(id).filter(|guarantee| guarantee.slug() == name));
        both.ok_or_else(|| UnknownGuarantee::new(text, &words))
    }
}

/// There is no guarantee of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownGuarantee {
    /// What was asked for.
    pub name: String,
    /// The guarantees with names like it, the nearest first.
    pub near: Vec<Guarantee>,
    /// Why it is not decided, if it is a known one.
    pub not_decided: Option<&'static str>,
}

/// So many names are offered.
const NEAR_MAX: usize = 3;

impl UnknownGuarantee {
    fn new(name: &str, words: &str) -> Self {
        let not_decided = NOT_DECIDED.iter().find(|other| other.id.eq_ignore_ascii_case(words));
        let likeness = |guarantee: Guarantee| {
            let slug = guarantee.slug();
            let id = strsim::normalized_levenshtein(&guarantee.id().to_lowercase(), words);
            // One word of a long name is often all that is remembered.
            let shares = words.len() > 3 && slug.contains(words);
            strsim::jaro_winkler(&slug, words).max(id) + f64::from(u8::from(shares))
        };
        let mut near: Vec<_> = Guarantee::all().collect();
        near.sort_by(|one, other| likeness(*other).total_cmp(&likeness(*one)));
        near.truncate(NEAR_MAX);
        Self { name: name.to_owned(), near, not_decided: not_decided.map(|other| other.reason) }
    }
}

impl fmt::Display for UnknownGuarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reason) = self.not_decided {
            return write!(f, "guarantee {} is not decided: {reason}", self.name);
        }
        let near: Vec<_> =
            self.near.iter().map(|near| format!("{} {}", near.id(), near.slug())).collect();
        write!(f, "no guarantee {:?}; near are {}", self.name, near.join(", "))
    }
}

impl std::error::Error for UnknownGuarantee {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_name_is_understood() {
        for guarantee in Guarantee::all() {
            let (id, slug) = (guarantee.id(), guarantee.slug());
            let forms = [id.to_owned(), id.to_lowercase(), slug.clone(), format!("{id}.{slug}")];
            for form in forms.into_iter().chain([guarantee.to_string(), guarantee.name().into()]) {
                assert_eq!(form.parse(), Ok(guarantee), "{form}");
            }
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_near_ones() {
        let error = "lost-wrte".parse::<Guarantee>().unwrap_err();
        assert_eq!(error.near.first(), Some(&Guarantee::B1));
        let text = error.to_string();
        assert!(text.starts_with("no guarantee \"lost-wrte\"; near are B1 lost-write, "), "{text}");
        let error = "duplicate".parse::<Guarantee>().unwrap_err();
        assert!(error.near.contains(&Guarantee::A2), "{error}");
        assert!("B2.lost-write".parse::<Guarantee>().is_err(), "id and name must be of one");
    }

    #[test]
    fn what_is_not_decided_says_why() {
        let error = "f13".parse::<Guarantee>().unwrap_err();
        assert!(error.to_string().starts_with("guarantee f13 is not decided: "), "{error}");
    }

    #[test]
    fn ids_and_names_are_there_once() {
        let mut names: Vec<_> = Guarantee::all().map(Guarantee::slug).collect();
        names.extend(Guarantee::all().map(|guarantee| guarantee.id().to_owned()));
        names.extend(NOT_DECIDED.iter().map(|other| other.id.to_owned()));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
