-- order_is_checkout_note: whether a line's note is one that the checkout itself writes on a line that it rejects. Results,
-- replays and the audit tell such lines by it, so these words are for nobody else.

create or replace function order_is_checkout_note(note text)
returns boolean
language sql
immutable
as $$
  select note in ('insufficient_inventory', 'below_minimum');
$$;

revoke execute on function order_is_checkout_note(text) from public;

comment on function order_is_checkout_note(text) is
  'Whether a note says that the checkout rejected the line: insufficient_inventory or below_minimum. Null for null.';
