-- A product that is sold from one row, and for which more sessions wait than the alert of deploy/alerts.yml allows: slots let as many
-- checkouts through at once, and keep their pace while somebody holds a snapshot.
select format('product %s', metric.labels ->> 'product_id') as subject,
       format('%s sessions wait for its one row of stock', metric.value) as problem,
       format('select inventory_split(%L, 16);', metric.labels ->> 'product_id') as remedy
  from checkout_metrics() as metric
 where metric.name = 'pycheckout_stock_waiters' and metric.labels ->> 'slots' = '1' and metric.value > 3
 order by metric.value desc
