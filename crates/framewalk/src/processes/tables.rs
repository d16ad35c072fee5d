//! Tables, built when they are first needed and shared by all objects with the same unwind data.

use super::image::{Image, Lack};
use super::{ObjectSource, Objects, Table};
use crate::sample::ObjectId;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Builds tables, one for all objects with the same unwind data.
///
/// What is shared is decided by the unwind data itself, not by a build id: that is an allegation of
/// the file, and a file could claim another's to give it a wrong table.
#[derive(Debug, Default)]
pub struct TableBuilder {
    of_images: HashMap<u64, Arc<Table>>,
    keyed: RandomState,
}

impl TableBuilder {
    /// The table of an object. It takes milliseconds to seconds where nothing is known yet.
    pub fn build(&mut self, source: &ObjectSource) -> Arc<Table> {
        let image = Image::read(source);
        let key = self.keyed.hash_one(&image);
        self.of_images
            .entry(key)
            .or_insert_with(|| Arc::new(Table::from_image(&image)))
            .clone()
    }
}

/// The tables of the objects met so far.
#[derive(Debug, Default)]
pub struct Tables {
    of_objects: HashMap<ObjectId, Arc<Table>>,
    builder: TableBuilder,
}

impl Tables {
    /// The table of an object; builds it if it is the first time.
    pub fn get(&mut self, id: ObjectId, objects: &Objects) -> &Arc<Table> {
        self.of_objects
            .entry(id)
            .or_insert_with(|| self.builder.build(&objects.get(id).source))
    }

    /// Takes a table that was built elsewhere.
    pub fn insert(&mut self, id: ObjectId, table: Arc<Table>) {
        self.of_objects.insert(id, table);
    }

    /// Whether the object has its table already.
    pub fn has(&self, id: ObjectId) -> bool {
        self.of_objects.contains_key(&id)
    }

    /// What is worth a line to the user, object by object.
    pub fn notes(&self, objects: &Objects) -> Vec<String> {
        let mut ids: Vec<_> = self.of_objects.iter().collect();
        ids.sort_by_key(|(id, _)| **id);
        let mut notes = Vec::new();
        for (id, table) in ids {
            let path = objects.get(*id).path.display();
            notes.extend(table.notes.iter().map(|note| format!("{path}: {note}")));
            if let Some(Lack::Unreadable(_) | Lack::Malformed(_) | Lack::Foreign(..)) = table.lack {
                notes.extend(table.lack.map(|lack| format!("{path}: {lack}")));
            }
        }
        notes
    }
}
