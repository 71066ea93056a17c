-- What the services of these examples own themselves, beside pycheckout's tables.

create table delivery_notes (
  cart_id uuid primary key,
  note text not null constraint delivery_notes_note_is_short check (length(note) <= 100)
);
