-- +goose NO TRANSACTION
-- +goose Up
create index concurrently orders_by_item on orders (item, placed);

-- +goose Down
drop index concurrently orders_by_item;
