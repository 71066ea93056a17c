-- cart_raise_inconsistent: the one way to say that a quote contradicts itself. Whoever reads only the message, in a log,
-- learns where, what was expected and what was found as well.

create or replace function cart_raise_inconsistent(cart_id uuid, problem jsonb)
returns void
language plpgsql
stable
as $$
declare
  v_problem alias for problem;
begin
  raise exception 'cart % contradicts itself (%)', cart_raise_inconsistent.cart_id,
                  concat((v_problem ->> 'problem') || ' ' || (v_problem ->> 'constraint'), nullif(v_problem ->> 'problem', 'constraint'),
                         ' at ' || (v_problem ->> 'field'), ': expected ' || (v_problem ->> 'expected') || ', found ' || (v_problem ->> 'found'))
    using errcode = 'OC007',
          detail = jsonb_build_object('cart_id', cart_raise_inconsistent.cart_id) || v_problem,
          hint = 'Quote the cart again; figures are copied, none is corrected.';
end;
$$;

revoke execute on function cart_raise_inconsistent(uuid, jsonb) from public;

comment on function cart_raise_inconsistent(uuid, jsonb) is
  'Raises OC007 cart_inconsistent with what is wrong in DETAIL, and its place, the expected and the found figure in the message too where they are known.';
