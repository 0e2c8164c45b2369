//! Objects of one kind that several processes refer to: each is observed once, and has a number by which states refer to it.

use std::collections::HashMap;
use std::hash::Hash;

use crate::observe::ObserveError;

/// Objects in the order in which they were found, and the keys that tell them apart.
#[derive(Debug)]
pub struct Numbered<K, T> {
    all: Vec<T>,
    numbers: HashMap<K, u32>,
}

impl<K, T> Default for Numbered<K, T> {
    fn default() -> Self {
        Self { all: Vec::new(), numbers: HashMap::new() }
    }
}

impl<K: Eq + Hash, T> Numbered<K, T> {
    /// The number of the object with this key, which is observed if it is new.
    ///
    /// # Errors
    ///
    /// Those of `observe`.
    pub fn number<E>(&mut self, key: K, observe: impl FnOnce() -> Result<T, E>) -> Result<u32, E> {
        if let Some(known) = self.known(&key) {
            return Ok(known);
        }
        let number = self.all.len() as u32;
        self.all.push(observe()?);
        self.numbers.insert(key, number);
        Ok(number)
    }

    /// The number of the object with this key, if it was found before.
    pub fn known(&self, key: &K) -> Option<u32> {
        self.numbers.get(key).copied()
    }

    /// The object with this number.
    ///
    /// # Errors
    ///
    /// When no object has it.
    pub fn at(&self, number: u32) -> Result<&T, ObserveError> {
        self.all.get(number as usize).ok_or(ObserveError::Internal("an object has a number that was not given out"))
    }

    /// See [`Numbered::at`].
    ///
    /// # Errors
    ///
    /// When no object has this number.
    pub fn at_mut(&mut self, number: u32) -> Result<&mut T, ObserveError> {
        self.all.get_mut(number as usize).ok_or(ObserveError::Internal("an object has a number that was not given out"))
    }

    /// All objects, by number.
    pub fn all(&self) -> &[T] {
        &self.all
    }

    /// See [`Numbered::all`].
    pub fn all_mut(&mut self) -> &mut [T] {
        &mut self.all
    }

    /// All objects with their keys, in no order.
    pub fn by_key(&self) -> impl Iterator<Item = (&K, &T)> {
        self.numbers.iter().filter_map(|(key, &number)| Some((key, self.all.get(number as usize)?)))
    }

    /// All objects, by number.
    pub fn into_all(self) -> Vec<T> {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_observed_once_and_a_number_that_nobody_has_is_an_error() {
        let mut found = Numbered::default();
        for (key, number) in [("a", 0), ("b", 1), ("a", 0)] {
            assert_eq!(found.number(key, || Ok::<_, ()>(key)), Ok(number));
        }
        assert_eq!(found.number("c", || Err(5)), Err(5));
        assert!(found.at(1).is_ok() && found.at(2).is_err());
        assert_eq!(found.into_all(), ["a", "b"]);
    }
}
