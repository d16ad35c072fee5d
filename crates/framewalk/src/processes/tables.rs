//! Tables, built when they are first needed and shared by all objects with the same unwind data.

use super::image::{Image, Lack};
use super::table::hole::Scan;
use super::{ObjectSource, Objects, Table};
use crate::sample::ObjectId;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;

/// Builds tables, one for all objects with the same unwind data.
///
/// What is shared is decided by the unwind data itself, not by a build id: that is an allegation of
/// the file, and a file could claim another's to give it a wrong table.
///
/// Whether code in large holes keeps frame pointers is looked up in each file: the unwind data does not tell.
#[derive(Debug, Default)]
pub struct TableBuilder {
    holes_of_images: HashMap<u64, Vec<Range<u64>>>,
    /// By image and what was found in its holes.
    tables: HashMap<(u64, Vec<bool>), Arc<Table>>,
    keyed: RandomState,
}

impl TableBuilder {
    /// The table of an object. It takes milliseconds to seconds where nothing is known yet.
    pub fn build(&mut self, source: &ObjectSource) -> Arc<Table> {
        let image = Image::read(source);
        let key = self.keyed.hash_one(&image);
        let segments = image.as_ref().map_or(&[][..], |image| &image.segments);
        if let Some(holes) = self.holes_of_images.get(&key) {
            let mut scan = Scan::new(source, segments);
            let kept = holes.iter().map(|hole| scan.keeps_frame_pointers(hole));
            let known = (key, kept.collect());
            if let Some(table) = self.tables.get(&known) {
                return table.clone();
            }
        }
        let mut scan = Scan::new(source, segments);
        let mut kept = Vec::new();
        let table = Arc::new(Table::from_image(&image, &mut |hole| {
            let keeps = scan.keeps_frame_pointers(hole);
            kept.push(keeps);
            keeps
        }));
        self.holes_of_images.insert(key, table.holes.clone());
        self.tables.insert((key, kept), table.clone());
        table
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
